// Starts the page: the player, the keys, and what the server tells.

import { $, $$, choose, element, get, goTo, onChange, open, refresh, say, step, store } from "./store.js";
import { accept, add, drawSegments, drawSteps, endSplit, focusName, listNames, merge, propagate, release, remove, save, solo, startPanel, startSplit, stepSegment } from "./panel.js";
import { drawTimeline, startTimeline } from "./timeline.js";
import { draw, isShown, openView, startView, useTool, zoomBy } from "./view.js";

let timer = null;
let following = true; // what is being segmented, until somebody moves
const play = (on) => {
  clearTimeout(timer);
  store.playing = on;
  $("#play").textContent = on ? "❚❚" : "▶";
  $("#play").setAttribute("aria-label", on ? "Pause" : "Play");
  if (on) next(performance.now());
};
// The next frame when it is due, but not before the last one is shown.
const next = (due) => {
  if (!store.playing) return;
  const wait = 1000 / Math.min(60, store.facts.fps || 15);
  if (isShown() && performance.now() >= due) {
    goTo((store.frame + 1) % store.facts.num_frames);
    due = Math.max(due + wait, performance.now());
  }
  timer = setTimeout(() => next(due), 4);
};

const nudge = (id, by) => {
  const input = $(`#${id}`);
  input.value = Number(input.value) + by;
  input.dispatchEvent(new Event("input"));
};
const givenFrom = (by) => {
  const all = store.state.given.filter((frame) => by * (frame - store.frame) > 0).sort((a, b) => by * (a - b));
  if (all.length) goTo(all[0]);
};
const KEYS = [
  ["ArrowRight", "→", "the next frame", () => goTo(store.frame + 1)],
  ["ArrowLeft", "←", "the frame before", () => goTo(store.frame - 1)],
  ["Shift+ArrowRight", "Shift →", "ten frames on", () => goTo(store.frame + 10)],
  ["Shift+ArrowLeft", "Shift ←", "ten frames back", () => goTo(store.frame - 10)],
  ["Home", "Home", "the first frame", () => goTo(0)],
  ["End", "End", "the last frame", () => goTo(store.facts.num_frames - 1)],
  [".", ".", "the next frame that was corrected or accepted", () => givenFrom(1)],
  [",", ",", "the one before", () => givenFrom(-1)],
  [" ", "Space", "play, pause", () => play(!store.playing)],
  ["ArrowDown", "↓", "the next segment", () => stepSegment(1)],
  ["ArrowUp", "↑", "the segment before", () => stepSegment(-1)],
  ["n", "N", "name what is chosen", focusName],
  ["m", "M", "merge what is chosen into the first of them (choose more with Shift)", merge],
  ["s", "S", "split the chosen segment", startSplit],
  ["+", "+", "a new segment, to paint", add],
  ["Delete", "Del", "delete what is chosen, in all frames", remove],
  ["x", "X", "show the chosen segments alone", solo],
  ["v", "V", "tool: select", () => useTool("select")],
  ["b", "B", "tool: brush", () => useTool("brush")],
  ["e", "E", "tool: eraser", () => useTool("eraser")],
  ["f", "F", "tool: fill a region with the chosen segment", () => useTool("fill")],
  ["]", "]", "larger brush", () => nudge("size", 4)],
  ["[", "[", "smaller brush", () => nudge("size", -4)],
  ["a", "A", "accept the frame, or open it again", accept],
  ["Shift+A", "Shift A", "give a corrected frame back: the next propagation may change it", release],
  ["p", "P", "propagate to the next corrected frame, or the end", () => propagate(false)],
  ["Shift+P", "Shift P", "propagate to the corrected frame before, or the beginning", () => propagate(true)],
  ["o", "O", "outlines", () => $("#outlines").click()],
  ["c", "C", "less colour", () => nudge("opacity", -15)],
  ["Shift+C", "Shift C", "more colour", () => nudge("opacity", 15)],
  ["z", "Z", "larger picture", () => zoomBy(1.5)],
  ["Shift+Z", "Shift Z", "smaller picture", () => zoomBy(1 / 1.5)],
  ["Ctrl+z", "Ctrl Z", "undo", () => step("undo")],
  ["Ctrl+Shift+Z", "Ctrl Shift Z", "redo", () => step("redo")],
  ["Ctrl+y", "Ctrl Y", "redo", () => step("redo")],
  ["Ctrl+s", "Ctrl S", "save into the run", save],
  ["Escape", "Esc", "let go of what is chosen", () => { endSplit(); choose([]); }],
  ["?", "?", "this help", () => $("#help-dialog").showModal()],
];
const keyOf = (event) => {
  const control = event.ctrlKey || event.metaKey ? "Ctrl+" : "";
  const long = event.key.length > 1 || /^[a-z]$/i.test(event.key);
  const key = event.key.length === 1 && event.shiftKey && long ? event.key.toUpperCase() : event.key.length === 1 ? event.key.toLowerCase() : event.key;
  return `${control}${event.shiftKey && long ? "Shift+" : ""}${key}`;
};
// What has a use of its own for a key keeps it: fields and lists every one, sliders and boxes those that move them.
const TYPED = "input:not([type=range], [type=checkbox]), select, textarea, [contenteditable]";
const PRESSED = "button, summary, a, input[type=checkbox]";
const SLID = "input[type=range]:not(#slider)";
const keepsKey = (target, key) =>
  (key === " " && target.closest(PRESSED)) || (/^(Arrow|Home|End|Page)/.test(key) && target.closest(SLID));
// A key that is held down is a key that is pressed again for these alone.
const REPEATED = ["ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", ".", ",", "[", "]", "c", "z"];
const startKeys = () => {
  const actions = new Map(KEYS.map(([key, , , action]) => [key, action]));
  document.addEventListener("keydown", (event) => {
    if (event.altKey || !store.state || $$("dialog").some((dialog) => dialog.open)) return;
    if (event.target.closest(TYPED)) {
      if (event.key === "Escape") $("#view").focus({ preventScroll: true });
      return;
    }
    const action = actions.get(keyOf(event));
    if (!action || keepsKey(event.target, event.key)) return;
    event.preventDefault();
    if (event.repeat && !REPEATED.includes(event.key.length === 1 ? event.key.toLowerCase() : event.key)) return;
    if (event.repeat && !isShown()) return; // as fast as frames come
    following = false;
    action();
  });
  $("#keys").replaceChildren(...KEYS.flatMap(([, key, says]) => [element("dt", {}, key), element("dd", {}, says)]));
  for (const button of $$("[data-key]")) if (!button.title) button.title = `${button.textContent} (${button.dataset.key})`;
};

const drawTools = () => {
  for (const button of $$("[data-tool]")) button.setAttribute("aria-checked", button.dataset.tool === store.tool);
  for (const label of $$("[data-for]")) label.classList.toggle("idle", !label.dataset.for.includes(store.tool));
  $("#strokes").style.cursor = store.tool === "brush" || store.tool === "eraser" ? "none" : store.tool === "fill" ? "cell" : "crosshair";
};
const drawPlayer = () => {
  $("#slider").max = store.facts.num_frames - 1;
  $("#slider").value = store.frame;
  $("#frame-says").textContent = `${store.frame + 1}/${store.facts.num_frames}`;
};
// A frame's numbers are drawn once the frame is shown; while one moves fast, the picture comes first.
let pending = 0;
const drawLater = () => {
  cancelAnimationFrame(pending);
  pending = requestAnimationFrame(() => {
    drawTimeline();
    drawSegments();
    drawSteps();
  });
};
onChange((what) => {
  if (what === "video") {
    openView();
    $("#video").value = store.number;
    document.title = `${store.facts.name} – studio`;
  }
  drawPlayer();
  if (what === "tool") return drawTools();
  if (what === "frame" || what === "selection") endSplit();
  if (what === "state") listNames();
  draw();
  return drawLater();
});

const listen = () => {
  const events = new EventSource("/api/events");
  let [looking, again] = [false, false];
  // Several things that happen at once are one look; what happens during a look is another one.
  const look = async () => {
    again = true;
    if (looking) return;
    looking = true;
    while (again) {
      await new Promise((done) => setTimeout(done, 60));
      again = false;
      await refresh().catch((error) => say(error.message));
      if (!store.facts.live || !store.state) continue;
      if (store.state.live) {
        if (following && store.state.live.done) goTo(store.state.live.done - 1);
        continue;
      }
      if (following) store.frame = 0; // whoever has watched begins at the beginning
      await open(store.number).catch((error) => say(error.message));
    }
    looking = false;
  };
  events.onmessage = ({ data }) => JSON.parse(data).video === store.number && look();
  events.onopen = look; // nothing was told while the connection was away
  events.onerror = () => events.readyState === EventSource.CLOSED && say("the studio does not answer; is it still running in the terminal?");
};

const start = async () => {
  store.studio = await get("studio");
  $("#video").replaceChildren(...store.studio.videos.map((name, number) => element("option", { value: number }, name)));
  startView();
  startPanel();
  startTimeline();
  startKeys();
  drawTools();
  for (const button of $$("[data-tool]")) button.addEventListener("click", () => useTool(button.dataset.tool));
  const toView = () => $("#view").focus({ preventScroll: true });
  // Whoever chose by the pointer goes on with the video's keys.
  let byPointer = false;
  addEventListener("pointerdown", () => (byPointer = true), true);
  addEventListener("keydown", () => (byPointer = false), true);
  $("#video").addEventListener("change", (event) => {
    if (byPointer) toView();
    open(Number(event.target.value)).catch((error) => say(error.message));
  });
  $("#slider").addEventListener("input", (event) => { following = false; goTo(Number(event.target.value)); });
  $("#play").addEventListener("click", () => play(!store.playing));
  $("#help").addEventListener("click", () => $("#help-dialog").showModal());
  for (const input of $$(".bar-of-tools input")) input.addEventListener("pointerup", () => setTimeout(toView));
  for (const id of ["opacity", "outlines"]) $(`#${id}`).addEventListener("input", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawTimeline);
  await open(0);
  listen();
  toView();
  document.body.dataset.ready = "yes";
};
start().catch((error) => say(error.message));
