// Frames and masks: fetched, decoded, kept and painted here, so that the page stays free. Bound to one canvas.
"use strict";

const FRAME_BYTES = 256 << 20;
const MASK_BYTES = 128 << 20;
let [canvas, pen, layer, layerPen] = [null, null, null, null];
let video = null;
let latest = 0;

class Kept {
  constructor(limit, sizeOf, drop) {
    Object.assign(this, { limit, sizeOf, drop, size: 0, values: new Map() });
  }
  get(key) {
    const value = this.values.get(key);
    if (value === undefined) return undefined;
    this.values.delete(key);
    this.values.set(key, value);
    return value;
  }
  put(key, value) {
    const before = this.values.get(key); // where two have fetched it; somebody may be about to paint it
    if (before !== undefined) this.size -= this.sizeOf(before);
    this.values.delete(key);
    this.values.set(key, value);
    this.size += this.sizeOf(value);
    for (const [oldest, dropped] of this.values) {
      if (this.size <= this.limit || oldest === key) break;
      this.values.delete(oldest);
      this.size -= this.sizeOf(dropped);
      this.drop?.(dropped);
    }
  }
}
let frames, masks, preview, waiting;
const forget = () => {
  frames = new Kept(FRAME_BYTES, ({ width, height }) => 4 * width * height, (bitmap) => bitmap.close());
  masks = new Kept(MASK_BYTES, (ids) => ids.byteLength);
  waiting = new Map();
  preview = null;
};

const fetched = async (path, signal) => {
  const answer = await fetch(path, { signal });
  if (!answer.ok) throw Object.assign(new Error(await answer.text()), { status: answer.status });
  return answer;
};
// Of two that want one thing, both get the one that is fetched.
const once = (kept, path, make) => {
  const there = kept.get(path);
  if (there !== undefined) return Promise.resolve(there);
  if (!waiting.has(path)) {
    const fetching = new AbortController();
    const made = fetched(path, fetching.signal).then(make).then((value) => {
      kept.put(path, value);
      return value;
    });
    waiting.set(path, { made, fetching });
    made.catch(() => {}).finally(() => waiting.get(path)?.made === made && waiting.delete(path));
  }
  return waiting.get(path).made;
};
const framePath = (number) => `/api/videos/${video.number}/frames/${number}`;
const maskPath = (number, version) => `/api/videos/${video.number}/masks/${number}/${version}`;
const frameOf = (number) => once(frames, framePath(number), async (answer) => createImageBitmap(await answer.blob()));
const maskOf = (number, version) =>
  version === null
    ? Promise.resolve(new Uint8Array(video.width * video.height))
    : once(masks, maskPath(number, version), async (answer) => decoded(await answer.arrayBuffer()));
// Of what is on its way, give up what nobody looks at any more, and nothing else.
const giveUpOthers = (wanted) => {
  const paths = new Set(wanted.flatMap(([number, version]) => [framePath(number), maskPath(number, version)]));
  for (const [path, { fetching }] of waiting) {
    if (paths.has(path)) continue;
    fetching.abort();
    waiting.delete(path);
  }
};

// Values of a PNG of one channel, of 8 bits or 16: palette indexes or greys. A browser's own decoder gives colours.
const decoded = async (buffer) => {
  const view = new DataView(buffer);
  const parts = [];
  let [width, height, bits] = [0, 0, 8];
  for (let at = 8; at < buffer.byteLength; ) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...new Uint8Array(buffer, at + 4, 4));
    if (kind === "IHDR") [width, height, bits] = [view.getUint32(at + 8), view.getUint32(at + 12), view.getUint8(at + 16)];
    if (kind === "IDAT") parts.push(new Uint8Array(buffer, at + 8, length));
    at += length + 12;
  }
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  const raw = new Uint8Array(await new Response(stream).arrayBuffer());
  const size = bits / 8;
  const bytes = unfiltered(raw, height, width * size, size);
  if (size === 1) return bytes;
  const ids = new Uint16Array(width * height);
  for (let index = 0; index < ids.length; index++) ids[index] = (bytes[2 * index] << 8) | bytes[2 * index + 1];
  return ids;
};
const unfiltered = (raw, height, row, size) => {
  const out = new Uint8Array(height * row);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (row + 1)];
    const from = y * (row + 1) + 1;
    const to = y * row;
    if (filter === 0) {
      out.set(raw.subarray(from, from + row), to);
      continue;
    }
    for (let x = 0; x < row; x++) {
      const left = x >= size ? out[to + x - size] : 0;
      const above = y ? out[to + x - row] : 0;
      const corner = x >= size && y ? out[to + x - row - size] : 0;
      let guess = filter === 1 ? left : filter === 2 ? above : (left + above) >> 1;
      if (filter === 4) {
        const [a, b, c] = [Math.abs(above - corner), Math.abs(left - corner), Math.abs(left + above - 2 * corner)];
        guess = a <= b && a <= c ? left : b <= c ? above : corner;
      }
      out[to + x] = raw[from + x] + guess;
    }
  }
  return out;
};

// Ids at the size of the picture, which is no larger than the screen shows it.
const sampled = (ids) => {
  const { width, height } = canvas;
  if (width === video.width && height === video.height) return ids;
  const cells = new ids.constructor(width * height);
  const columns = Uint32Array.from({ length: width }, (_, x) => Math.floor(((x + 0.5) * video.width) / width));
  for (let y = 0, at = 0; y < height; y++) {
    const row = Math.floor(((y + 0.5) * video.height) / height) * video.width;
    for (let x = 0; x < width; x++) cells[at++] = ids[row + columns[x]];
  }
  return cells;
};
const resize = (width, height) => {
  Object.assign(canvas, { width, height });
  layer = new OffscreenCanvas(width, height);
  layerPen = layer.getContext("2d", { willReadFrequently: true });
};

// Colours of ids as ABGR; `groups` says which ids have no outline between them.
const paint = (bitmap, ids, { colors, groups, outlines, outline, parts }, split) => {
  const { width, height } = canvas;
  pen.globalAlpha = 1;
  pen.drawImage(bitmap, 0, 0, width, height);
  const image = layerPen.createImageData(width, height);
  const out = new Uint32Array(image.data.buffer);
  for (let index = 0; index < ids.length; index++) out[index] = colors[ids[index]];
  if (split) for (let index = 0; index < ids.length; index++) if (split[index]) out[index] = parts[split[index]];
  for (let y = 0; outlines && y < height - 1; y++)
    for (let index = y * width, end = index + width - 1; index < end; index++) {
      const here = groups[ids[index]];
      if (here !== groups[ids[index + 1]] || here !== groups[ids[index + width]]) out[index] = outline;
    }
  layerPen.putImageData(image, 0, 0);
  pen.drawImage(layer, 0, 0);
};

const SUPERSEDED = 503; // the server was asked for many others since
const show = async ({ turn, frame, version, look, near }) => {
  latest = turn;
  giveUpOthers([[frame, version], ...near]);
  try {
    const [bitmap, ids] = await Promise.all([frameOf(frame), maskOf(frame, version)]);
    if (turn !== latest) return;
    paint(bitmap, sampled(ids), look, preview?.frame === frame ? sampled(preview.ids) : null);
    postMessage({ kind: "shown", turn, frame });
    prefetch(turn, near);
  } catch (error) {
    if (turn !== latest || error.name === "AbortError") return;
    // A step has come between the state and the mask: with the new state the page asks again.
    if (error.status === 409) postMessage({ kind: "stale" });
    else if (error.status === SUPERSEDED) show({ turn, frame, version, look, near });
    else postMessage({ kind: "failed", turn, frame, text: error.message });
  }
};
// Two at a time: while one is on its way, the other one is decoded.
const prefetch = (turn, near) => {
  const left = near.slice();
  const go = async () => {
    while (left.length && turn === latest) {
      const [number, version] = left.shift();
      await Promise.all([frameOf(number), maskOf(number, version)]).catch(() => {});
    }
  };
  go();
  go();
};

onmessage = async ({ data }) => {
  if (data.kind === "canvas") {
    canvas = data.canvas;
    pen = canvas.getContext("2d", { alpha: false });
    forget();
  } else if (data.kind === "open") {
    video = data.video;
    forget();
    resize(video.width, video.height);
  } else if (data.kind === "size") {
    resize(data.width, data.height);
  } else if (data.kind === "show") {
    show(data);
  } else if (data.kind === "at") {
    const ids = await maskOf(data.frame, data.version).catch(() => null);
    postMessage({ kind: "at", turn: data.turn, id: ids ? ids[data.y * video.width + data.x] : 0 });
  } else if (data.kind === "preview") {
    let text = null;
    try {
      const path = `/api/videos/${video.number}/split/${data.frame}/${data.segment}/${data.num}`;
      const ids = await decoded(await (await fetched(path)).arrayBuffer());
      preview = { frame: data.frame, ids };
    } catch (error) {
      [preview, text] = [null, error.message];
    }
    postMessage({ kind: "preview", turn: data.turn, text });
  } else if (data.kind === "no preview") {
    preview = null;
  }
};
