// Segments over time: a row each, as high as it is large there; above them which frames hold the truth, and likely cuts.

import { $, areasOf, choose, css, goTo, nameOf, store } from "./store.js";

const ROW = 16;
const TOP = 16;
const CUT = 0.35; // share of the frame that changes its segment from one frame to the next
let kept = { state: null, areas: [], rows: [], cuts: [] };
const drawn = { canvas: document.createElement("canvas"), of: "" }; // the rows, which no frame changes

const tables = () => {
  if (kept.state === store.state) return kept;
  const frames = [...Array(store.facts.num_frames).keys()];
  const areas = frames.map(areasOf);
  const largest = new Map();
  for (const of of areas) for (const [id, area] of of) largest.set(id, Math.max(largest.get(id) ?? 0, area));
  const rows = store.state.segments.filter(({ id }) => largest.has(id)).map((one) => ({ ...one, largest: largest.get(one.id) }));
  const pixels = store.facts.width * store.facts.height;
  const cuts = frames.slice(1).filter((frame) => {
    const ids = new Set([...areas[frame].keys(), ...areas[frame - 1].keys()]);
    let moved = 0;
    for (const id of ids) moved += Math.abs((areas[frame].get(id) ?? 0) - (areas[frame - 1].get(id) ?? 0));
    return areas[frame].size && areas[frame - 1].size && moved / 2 / pixels > CUT;
  });
  kept = { state: store.state, areas, rows, cuts };
  return kept;
};

const drawRows = (width, height, scale) => {
  const { areas, rows } = tables();
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const of = [store.number, store.state.revision, store.state.live?.done, store.selected, width, height, scale, dark].join();
  if (drawn.of === of) return drawn.canvas;
  drawn.of = of;
  Object.assign(drawn.canvas, { width: width * scale, height: height * scale });
  const pen = drawn.canvas.getContext("2d");
  pen.scale(scale, scale);
  const number = store.facts.num_frames;
  const cell = Math.max(1, width / number);
  rows.forEach(({ id, color, largest }, index) => {
    const bottom = TOP + ROW * (index + 1) - 2;
    const lit = store.selected.includes(id);
    if (lit) {
      pen.fillStyle = css("--line");
      pen.fillRect(0, bottom - ROW + 2, width, ROW);
    }
    pen.globalAlpha = !store.selected.length || lit ? 1 : 0.45;
    pen.fillStyle = `rgb(${color})`;
    for (let frame = 0; frame < number; frame++) {
      const area = areas[frame].get(id);
      if (!area) continue;
      const tall = Math.max(2, ((ROW - 4) * area) / largest);
      pen.fillRect((frame * width) / number, bottom - tall, cell > 3 ? cell - 0.5 : cell + 0.5, tall);
    }
    pen.globalAlpha = 1;
  });
  return drawn.canvas;
};

export const drawTimeline = () => {
  if (!store.state) return;
  const { areas, rows, cuts } = tables();
  const canvas = $("#timeline");
  const width = Math.max(1, $("#lines").clientWidth);
  const height = TOP + ROW * rows.length + 4;
  const scale = devicePixelRatio || 1;
  const lines = drawRows(width, height, scale);
  if (canvas.width !== lines.width || canvas.height !== lines.height) Object.assign(canvas, { width: lines.width, height: lines.height });
  const pen = canvas.getContext("2d");
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(lines, 0, 0);
  pen.scale(scale, scale);
  const number = store.facts.num_frames;
  const left = (frame) => (frame * width) / number;
  const cell = Math.max(1, width / number);
  pen.fillStyle = css("--muted");
  for (const frame of cuts) pen.fillRect(left(frame), 0, 1, height);
  const accepted = new Set(store.state.accepted);
  for (const frame of store.state.given) {
    pen.fillStyle = css(accepted.has(frame) ? "--better" : "--accent");
    const middle = left(frame) + cell / 2;
    pen.beginPath();
    if (accepted.has(frame)) pen.rect(middle - 4, 3, 8, 8);
    else pen.arc(middle, 7, 4, 0, 7);
    pen.fill();
  }
  pen.fillStyle = css("--text");
  pen.fillRect(left(store.frame) + cell / 2 - 0.5, 0, 1.5, height);
  const corrected = store.state.given.filter((frame) => !accepted.has(frame)).length;
  const counts = [[corrected, "● corrected"], [accepted.size, "■ accepted"]].filter(([count]) => count);
  const marks = counts.length ? `${counts.map(([count, says]) => `${says}: ${count}`).join(", ")}. ` : "";
  const chosen = store.selected.length === 1 ? `${nameOf(store.selected[0])}: in ${areas.filter((of) => of.has(store.selected[0])).length} of ${number} frames. ` : "";
  $("#line-says").textContent = `${chosen}${marks}${cuts.length ? `Likely cuts: ${cuts.slice(0, 8).map((cut) => cut + 1).join(", ")}${cuts.length > 8 ? " …" : ""}.` : ""}`;
};

export const startTimeline = () => {
  const canvas = $("#timeline");
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [Math.floor(((event.clientX - box.left) / box.width) * store.facts.num_frames), Math.floor((event.clientY - box.top - TOP) / ROW)];
  };
  let dragging = false;
  canvas.addEventListener("pointerdown", (event) => {
    if (!store.state) return;
    dragging = true;
    canvas.setPointerCapture(event.pointerId);
    const [frame, row] = at(event);
    const chosen = tables().rows[row];
    if (chosen) choose([chosen.id]);
    goTo(frame);
  });
  canvas.addEventListener("pointermove", (event) => dragging && goTo(at(event)[0]));
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => (dragging = false));
  addEventListener("resize", drawTimeline);
};
