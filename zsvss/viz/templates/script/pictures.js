// Pictures of the video browser: what the page holds is unpacked once, and labels are painted over frames.

const context = Object.fromEntries($$("canvas[data-panel]").map((canvas) => [canvas.dataset.panel, canvas.getContext("2d", { willReadFrequently: true })]));

// What is unpacked of the videos that were looked at last; all of fifty videos would fill the memory.
const KEPT = 3;
const opened = new Map();
const once = (video, key, make) => {
  const own = opened.get(video) ?? new Map();
  opened.delete(video);
  opened.set(video, own);
  while (opened.size > KEPT) opened.delete(opened.keys().next().value);
  if (!own.has(key)) {
    const made = make();
    made.catch?.(() => own.delete(key));
    own.set(key, made);
  }
  return own.get(key);
};

// Parts of a large page are scripts beside it, which is what a page opened from a disk may read.
const awaited = new Map();
window.zsvssPart = (name, content) => awaited.get(name)?.(content);
const part = (video, name) =>
  once(video, `part ${name}`, () =>
    new Promise((resolve, reject) => {
      const file = `${data.parts}/${name}.js`;
      const script = element("script", { src: file });
      const missing = () => reject(new Error(`${decodeURIComponent(file)} is missing: keep the folder ${decodeURIComponent(data.parts)} beside the page.`));
      awaited.set(name, resolve);
      script.addEventListener("error", missing);
      script.addEventListener("load", () => {
        awaited.delete(name);
        script.remove();
        missing(); // does nothing where the part has arrived
      });
      document.head.append(script);
    }),
  );
const partOf = (video, key) => Object.keys(video.parts).find((name) => video.parts[name].includes(key));
const keysOf = (video) => (video.parts ? Object.values(video.parts).flat() : Object.keys(video.pieces));
const piece = async (video, key) => (video.parts ? await part(video, partOf(video, key)) : video.pieces)[key];

const unpack = async ({ height, width, data: packed }) => {
  const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const labels = new Uint8Array(await new Response(stream).arrayBuffer());
  const area = height * width;
  for (let index = area; index < labels.length; index++) labels[index] += labels[index - area];
  return { height, width, count: labels.length / area, frame: (number) => labels.subarray(number * area, (number + 1) * area) };
};
const truthOf = (video) => once(video, "truth", async () => unpack(await piece(video, "truth")));
// The maps of a run by stage; none where it has none of this video.
const maps = (video, run) =>
  once(video, `maps ${run}`, async () => {
    const keys = run === "" ? [] : keysOf(video).filter((key) => key.startsWith(`${run} `));
    const read = await Promise.all(keys.map(async (key) => unpack(await piece(video, key))));
    return Object.fromEntries(keys.map((key, index) => [key.slice(`${run} `.length), read[index]]));
  });
const picture = (video, number) =>
  once(video, `frame ${number}`, async () => {
    const starts = keysOf(video).filter((key) => key.startsWith("frames ")).map((key) => Number(key.slice("frames ".length)));
    const start = Math.max(...starts.filter((first) => first <= number));
    const jpegs = await piece(video, `frames ${start}`);
    const image = new Image();
    // A video whose frames are gone has one grey frame.
    image.src = `data:image/jpeg;base64,${jpegs[Math.min(number - start, jpegs.length - 1)]}`;
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

// Whether a label is lit when another is highlighted: a cluster lights its class, and a class its clusters.
const isLit = (label) => {
  const rows = state.video.labels;
  return state.label === null || label === state.label || rows[state.label].class === label || rows[label].class === state.label;
};
const paintLabels = (kind, frame, labels) => {
  const { video, label: highlighted } = state;
  const alpha = Math.max($("#opacity").value / 100, highlighted === null ? 0 : 0.55);
  const lit = video.labels.map((_, label) => isLit(label));
  const off = video.labels.map((_, label) => isHidden(video, label));
  paint(kind, frame, (pixels, width) => {
    for (let index = 0; index < labels.length; index++) {
      const label = labels[index];
      if (label === NONE) blend(pixels, 4 * index, [0, 0, 0], highlighted === null ? 0.55 : 0.8);
      else if (!lit[label]) blend(pixels, 4 * index, [24, 26, 30], 0.75);
      else if (!off[label]) {
        blend(pixels, 4 * index, video.labels[label].color, alpha);
        if (highlighted !== null && isEdge(labels, index, width)) blend(pixels, 4 * index, [255, 255, 255], 0.95);
      }
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
