// The frame: what the worker paints, what a click hits, and strokes before they are a step.

import { $, changed, choose, isBusy, refresh, root, say, segment, step, store, versionOf } from "./store.js";

const AHEAD = 10;
const BEHIND = 4;
const PIXELS_KEPT = 64 << 20; // of frames, 4 bytes each, and of masks, 2 at most: see worker.js
const worker = new Worker("/files/worker.js");
const answers = new Map();
let turn = 0;
let asked = 0;
let direction = 1;
let lastShown = 0;

const abgr = ([red, green, blue], alpha) => ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;

// Colours and outlines for every id that a mask may hold.
const look = () => {
  const { state, selected, solo } = store;
  const highest = Math.max(255, ...state.segments.map(({ id }) => id), ...Object.keys(state.merged).map(Number));
  const [colors, groups] = [new Uint32Array(highest + 1), new Uint32Array(highest + 1)];
  const strength = Number($("#opacity").value) / 100;
  const classes = new Map();
  const now = new Map(state.segments.map((one) => [one.id, one]));
  for (let id = 1; id <= highest; id++) {
    const shown = now.get(root(id));
    if (!shown) continue;
    if (!classes.has(shown.name)) classes.set(shown.name, classes.size + 1);
    groups[id] = classes.get(shown.name);
    const lit = selected.includes(shown.id);
    const alpha = !selected.length ? strength : lit ? Math.min(1, strength + 0.2) : solo ? 0 : 0.5 * strength;
    colors[id] = abgr(shown.color, Math.round(255 * alpha));
    // What is chosen has an outline against others of its class.
    if (lit && selected.length) groups[id] += 0x10000;
  }
  if (solo && selected.length)
    for (let id = 0; id <= highest; id++) if (!selected.includes(root(id))) [colors[id], groups[id]] = [0xd0101010, 0];
  const parts = new Uint32Array(13);
  PART_COLORS.forEach((color, index) => (parts[index + 1] = abgr(color, 215)));
  return { colors, groups, outlines: $("#outlines").checked, outline: 0xffffffff, parts };
};
const PART_COLORS = [
  [0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [86, 180, 233], [213, 94, 0],
  [240, 228, 66], [140, 107, 177], [127, 127, 127], [255, 255, 255], [20, 20, 20], [150, 75, 0],
];

// As many frames around the one that is shown as the worker keeps.
const near = () => {
  const { width, height } = store.facts;
  const most = Math.max(0, Math.floor(PIXELS_KEPT / (width * height)) - 1);
  const ahead = Math.min(AHEAD, Math.ceil(0.7 * most));
  const numbers = [];
  for (let by = 1; by <= ahead; by++) numbers.push(store.frame + direction * by);
  for (let by = 1; by <= Math.min(BEHIND, most - ahead); by++) numbers.push(store.frame - direction * by);
  return numbers.filter((number) => number >= 0 && number < store.facts.num_frames).map((number) => [number, versionOf(number)]);
};

// One picture at a time: what is asked for while the worker is at one is asked for when it is shown, and only the last of
// it, so that a slider that is dragged and a key that is held down show what they pass. What takes long makes way.
let posted = null;
let later = 0;
const LONG = 150; // milliseconds
const post = () => {
  clearTimeout(later);
  if (!store.state) return; // another video is being opened
  const frame = store.frame;
  if (frame !== lastShown) direction = frame < lastShown ? -1 : 1;
  posted = { turn, at: performance.now() };
  worker.postMessage({ kind: "show", turn, frame, version: versionOf(frame), look: look(), near: near() });
};
export const draw = () => {
  if (!store.state) return;
  answers.set(++turn, performance.now());
  document.body.dataset.drawing = turn;
  if (stroke || sent.size) drawStrokes();
  clearTimeout(later);
  const left = posted ? posted.at + LONG - performance.now() : 0;
  if (left > 0) later = setTimeout(post, left);
  else post();
};
const answered = (mine) => {
  if (posted?.turn === mine) posted = null;
  if (!posted && mine < turn) post();
};
export const isShown = () => document.body.dataset.frame === String(store.frame);
const waitFor = (kind, message) =>
  new Promise((resolve) => {
    const mine = `${kind} ${++asked}`;
    answers.set(mine, resolve);
    worker.postMessage({ kind, turn: mine, ...message });
  });
worker.onmessage = ({ data }) => {
  if (data.kind === "shown") {
    const milliseconds = performance.now() - answers.get(data.turn);
    for (const key of answers.keys()) if (typeof key === "number" && key <= data.turn) answers.delete(key);
    lastShown = data.frame;
    document.body.dataset.frame = data.frame;
    document.body.dataset.shown = data.turn;
    document.dispatchEvent(new CustomEvent("studio:shown", { detail: { frame: data.frame, milliseconds } }));
    answered(data.turn);
  } else if (data.kind === "stale") {
    posted = null;
    refresh().catch((error) => say(error.message));
  } else if (data.kind === "failed") {
    say(`frame ${data.frame + 1}: ${data.text}`);
    answered(data.turn);
  } else {
    answers.get(data.turn)?.(data);
    answers.delete(data.turn);
  }
};

export const openView = () => {
  const { width, height, live } = store.facts;
  worker.postMessage({ kind: "open", video: { number: store.number, width, height } });
  Object.assign($("#strokes"), { width, height });
  painted = { width, height };
  fit();
  document.body.dataset.live = live ? "yes" : "no";
};
let zoom = 1;
let painted = {};
export const zoomBy = (factor) => {
  zoom = Math.max(1, Math.min(8, zoom * factor));
  fit();
};
const fit = () => {
  if (!store.facts) return;
  const { width, height } = store.facts;
  const view = $("#view");
  const most = parseFloat(getComputedStyle(view).maxHeight) || innerHeight;
  const fitting = Math.min(view.clientWidth, (Math.max(160, most) * width) / height);
  const wide = Math.floor(fitting) * zoom;
  $("#sheet").style.width = `${wide}px`;
  // No more pixels are painted than the screen has.
  const scale = Math.min(1, (wide * (devicePixelRatio || 1)) / width);
  const size = { width: Math.max(1, Math.round(scale * width)), height: Math.max(1, Math.round(scale * height)) };
  if (size.width === painted.width && size.height === painted.height) return;
  painted = size;
  worker.postMessage({ kind: "size", ...size });
  draw();
};
addEventListener("resize", fit);

export const previewSplit = async (segmentId, num) => {
  const { text } = await waitFor("preview", { frame: store.frame, segment: segmentId, num });
  if (text) say(text);
  draw();
  return !text;
};
export const dropPreview = () => {
  worker.postMessage({ kind: "no preview" });
  draw();
};

const place = ({ clientX, clientY }) => {
  const box = $("#strokes").getBoundingClientRect();
  const { width, height } = store.facts;
  return [((clientX - box.left) / box.width) * width, ((clientY - box.top) / box.height) * height];
};
const pixel = (event) => {
  const [x, y] = place(event);
  const { width, height } = store.facts;
  return [Math.max(0, Math.min(width - 1, Math.floor(x))), Math.max(0, Math.min(height - 1, Math.floor(y)))];
};
const idAt = async ([x, y]) => {
  const { id } = await waitFor("at", { frame: store.frame, version: versionOf(store.frame), x, y });
  return root(id);
};

const PAINTING = ["brush", "eraser"];
let stroke = null;
const sent = new Set(); // strokes that are no step yet
const MOST_POINTS = 4000;
const radius = () => Number($("#size").value);
const strokePen = () => $("#strokes").getContext("2d");
const clearStrokes = () => strokePen().clearRect(0, 0, store.facts.width, store.facts.height);
let pointing = null; // where the brush is, while it is over the frame
const ring = (event) => {
  pointing = event;
  drawStrokes();
};
const drawRing = () => {
  const pen = strokePen();
  pen.lineWidth = Math.max(1, store.facts.width / 600);
  for (const [color, by] of [["#000a", 0.5], ["#fff", 0]]) {
    pen.strokeStyle = color;
    pen.beginPath();
    pen.arc(...place(pointing), radius() + by, 0, 7);
    pen.stroke();
  }
};
const drawStrokes = () => {
  clearStrokes();
  const pen = strokePen();
  for (const { fields, color, number } of stroke ? [...sent, stroke] : sent) {
    if (fields.frame !== store.frame || number !== store.number) continue;
    Object.assign(pen, { lineCap: "round", lineJoin: "round", lineWidth: 2 * fields.radius, strokeStyle: `rgb(${color} / 0.7)` });
    pen.beginPath();
    fields.points.forEach(([x, y], index) => (index ? pen.lineTo(x, y) : pen.moveTo(x, y + 0.01)));
    if (fields.points.length === 1) pen.lineTo(...fields.points[0]);
    pen.stroke();
  }
  if (pointing && !stroke && PAINTING.includes(store.tool)) drawRing();
};
// What a stroke paints is settled where it begins. Points that hardly differ for its radius are one.
const begun = (event) => {
  const erasing = store.tool === "eraser";
  const [chosen] = store.selected;
  const only = erasing && store.selected.length === 1 ? chosen : 0;
  const fields = { frame: store.frame, points: [], radius: radius(), snaps: $("#snaps").checked, segment: erasing ? 0 : chosen, only };
  stroke = { fields, pointer: event.pointerId, number: store.number, color: erasing ? [255, 255, 255] : segment(chosen).color };
  extend(event);
};
const extend = (event) => {
  const { points, radius } = stroke.fields;
  const { width, height } = store.facts;
  // No farther outside than the server takes it.
  const [x, y] = place(event).map((value, axis) => Math.max(-[width, height][axis], Math.min(2 * [width, height][axis], value)));
  const last = points.at(-1);
  if (last && Math.hypot(x - last[0], y - last[1]) < Math.max(0.5, radius / 8)) return;
  points.push([Math.round(16 * x) / 16, Math.round(16 * y) / 16]);
  if (points.length < MOST_POINTS) return;
  send(); // a longer one goes on as another step
  stroke = { ...stroke, fields: { ...stroke.fields, points: [points.at(-1)] } };
};
const send = async () => {
  const done = stroke;
  sent.add(done);
  if (done.number === store.number) await step("brush", done.fields);
  sent.delete(done);
  drawStrokes();
};
const mayPaint = () => {
  if (isBusy()) say("wait until what is being computed is done, or stop it");
  else if (store.state.accepted.includes(store.frame)) say("this frame is accepted; press A to open it again");
  else if (store.tool !== "eraser" && store.selected.length !== 1) say("choose the segment to paint: click it with the Select tool, or in the list");
  else return true;
  return false;
};

export const startView = () => {
  const canvas = $("#picture").transferControlToOffscreen();
  worker.postMessage({ kind: "canvas", canvas }, [canvas]);
  const sheet = $("#strokes");
  sheet.addEventListener("pointerdown", async (event) => {
    if (event.button || !store.state || stroke) return;
    event.preventDefault();
    $("#view").focus({ preventScroll: true });
    if (store.tool === "select") {
      const id = await idAt(pixel(event));
      const others = event.shiftKey ? store.selected : [];
      if (!id) choose(others);
      else if (event.shiftKey && others.includes(id)) choose(others.filter((one) => one !== id));
      else choose([...others.filter((one) => one !== id), id]);
    } else if (store.tool === "fill") {
      if (!mayPaint()) return;
      const [x, y] = pixel(event);
      step("fill", { frame: store.frame, segment: store.selected[0], x, y });
    } else if (mayPaint()) {
      sheet.setPointerCapture(event.pointerId);
      begun(event);
      drawStrokes();
    }
  });
  sheet.addEventListener("pointermove", (event) => {
    if (stroke) {
      if (event.pointerId !== stroke.pointer) return;
      const all = event.getCoalescedEvents?.() ?? [];
      for (const one of all.length ? all : [event]) extend(one);
      drawStrokes();
    } else if (store.facts && PAINTING.includes(store.tool)) ring(event);
  });
  const end = (event) => {
    if (event.pointerId !== stroke?.pointer) return;
    send(); // also one that the system ends: what was painted is there to be seen, and can be taken back
    stroke = null;
    ring(event);
  };
  sheet.addEventListener("pointerup", end);
  sheet.addEventListener("pointercancel", end);
  sheet.addEventListener("pointerleave", () => store.facts && ring(null));
  $("#view").addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    zoomBy(event.deltaY < 0 ? 1.25 : 0.8);
  }, { passive: false });
};
export const useTool = (tool) => {
  store.tool = tool;
  if (store.facts) drawStrokes();
  changed("tool");
};
