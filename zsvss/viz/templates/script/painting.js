// Pictures of the video browser: what the page holds is unpacked once, and labels are painted over frames.

const state = { video: null, a: 0, b: "", frame: 0, label: null, playing: null };
const context = Object.fromEntries($$("canvas[data-panel]").map((canvas) => [canvas.dataset.panel, canvas.getContext("2d", { willReadFrequently: true })]));

const unpack = async ({ height, width, data: packed }, numFrames) => {
  const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const labels = new Uint8Array(await new Response(stream).arrayBuffer());
  const area = height * width;
  for (let index = area; index < numFrames * area; index++) labels[index] += labels[index - area];
  return { height, width, frame: (number) => labels.subarray(number * area, (number + 1) * area) };
};

const opened = new Map();
// Two data sets may have a video of one name.
const numberOf = (video) => data.videos.indexOf(video);
const once = (key, make) => {
  if (!opened.has(key)) opened.set(key, make());
  return opened.get(key);
};
const maps = (video, run) =>
  once(`${numberOf(video)} ${run}`, async () => {
    const stages = Object.entries(video.runs[run] ?? {});
    const read = await Promise.all(stages.map(([, packed]) => unpack(packed, video.frames.length)));
    return Object.fromEntries(stages.map(([stage], index) => [stage, read[index]]));
  });
const picture = (video, number) =>
  once(`${numberOf(video)} frame ${number}`, async () => {
    const image = new Image();
    image.src = `data:image/jpeg;base64,${video.frames[number]}`;
    await image.decode();
    const canvas = new OffscreenCanvas(video.width, video.height);
    const pen = canvas.getContext("2d");
    pen.drawImage(image, 0, 0);
    return pen.getImageData(0, 0, video.width, video.height);
  });

// Label number of every pixel of a panel of height x width; cells of a coarser map are enlarged.
const enlarged = (map, number, height, width) => {
  const cells = map.frame(number);
  if (map.height === height && map.width === width) return cells;
  const labels = new Uint8Array(height * width);
  for (let y = 0; y < height; y++) {
    const start = Math.floor(((2 * y + 1) * map.height) / (2 * height)) * map.width;
    for (let x = 0; x < width; x++) labels[y * width + x] = cells[start + Math.floor(((2 * x + 1) * map.width) / (2 * width))];
  }
  return labels;
};

const paint = (kind, frame, colorOf) => {
  const pen = context[kind];
  const { width, height } = frame;
  if (pen.canvas.width !== width || pen.canvas.height !== height) Object.assign(pen.canvas, { width, height });
  const image = new ImageData(new Uint8ClampedArray(frame.data), width, height);
  if (colorOf) colorOf(image.data, width);
  pen.putImageData(image, 0, 0);
};
const blend = (pixels, at, color, weight) => {
  for (let channel = 0; channel < 3; channel++) pixels[at + channel] += weight * (color[channel] - pixels[at + channel]);
};
const isEdge = (labels, index, width) =>
  labels[index] !== labels[index + 1] || labels[index] !== labels[index + width] || labels[index] !== labels[index - 1] || labels[index] !== labels[index - width];

const paintLabels = (kind, frame, labels) => {
  const alpha = $("#opacity").value / 100;
  paint(kind, frame, (pixels, width) => {
    for (let index = 0; index < labels.length; index++) {
      const label = labels[index];
      const lit = state.label === null || label === state.label;
      if (label === NONE) blend(pixels, 4 * index, [0, 0, 0], lit ? 0.55 : 0.8);
      else if (lit) blend(pixels, 4 * index, state.video.labels[label].color, Math.max(alpha, state.label === null ? 0 : 0.55));
      else blend(pixels, 4 * index, [24, 26, 30], 0.75);
      if (state.label !== null && lit && isEdge(labels, index, width)) blend(pixels, 4 * index, [255, 255, 255], 0.95);
    }
  });
};

const hex = (name) => [1, 3, 5].map((start) => parseInt(css(name).slice(start, start + 2), 16));
const paintDifference = (frame, a, b, truth) => {
  const colors = { a: hex("--right-a"), b: hex("--right-b"), neither: hex("--both-wrong") };
  let differing = 0;
  paint("difference", frame, (pixels) => {
    for (let index = 0; index < a.length; index++) {
      const at = 4 * index;
      const grey = 0.45 * (0.3 * pixels[at] + 0.59 * pixels[at + 1] + 0.11 * pixels[at + 2]);
      pixels[at] = pixels[at + 1] = pixels[at + 2] = grey;
      if (a[index] === b[index] || (b === truth && truth[index] === NONE)) continue;
      differing++;
      const right = b === truth ? "b" : a[index] === truth[index] && truth[index] !== NONE ? "a" : b[index] === truth[index] && truth[index] !== NONE ? "b" : "neither";
      blend(pixels, at, colors[right], 0.85);
    }
  });
  return differing / a.length;
};
