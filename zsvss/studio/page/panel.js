// The list of segments, their names, and the steps on them; export and score.

import { $, $$, areasOf, choose, element, isBusy, nameOf, say, step, store } from "./store.js";
import { dropPreview, previewSplit } from "./view.js";

const percent = (share) => (share >= 0.0995 ? `${Math.round(100 * share)} %` : `${(100 * share).toFixed(1)} %`);

// A segment's row stays the same one while it changes, so that a second click finds it.
const rows = new Map();
const made = (id) => {
  const button = element("button", { type: "button", "data-segment": id }, element("span", { class: "swatch" }), element("span"), element("small"));
  button.addEventListener("click", (event) => event.detail < 2 && toggle(id, event.shiftKey || event.ctrlKey || event.metaKey));
  button.addEventListener("dblclick", () => {
    choose([id]);
    focusName();
  });
  return element("li", {}, button);
};
let inView = null;
export const drawSegments = () => {
  if (!store.state) return;
  const areas = areasOf(store.frame);
  const pixels = store.facts.width * store.facts.height;
  const named = new Set(store.state.named);
  const list = $("#segments");
  const items = store.state.segments.map(({ id, name, color }) => {
    if (!rows.has(id)) rows.set(id, made(id));
    const button = rows.get(id).firstChild;
    const [mark, what, share] = button.children;
    const here = areas.get(id);
    button.setAttribute("aria-pressed", store.selected.includes(id));
    mark.style.background = `rgb(${color})`;
    Object.assign(what, { className: named.has(id) ? "what" : "what unnamed", title: `${name} (${id})`, textContent: name });
    share.textContent = here ? percent(here / pixels) : "–";
    return rows.get(id);
  });
  if (items.length !== list.children.length || items.some((item, index) => item !== list.children[index])) list.replaceChildren(...items);
  const chosen = store.selected.length === 1 ? store.selected[0] : null;
  if (chosen !== null && chosen !== inView) rows.get(chosen)?.scrollIntoView({ block: "nearest" });
  inView = chosen;
  drawNaming();
};
// The field may not have been drawn yet as one that can be written in.
export const focusName = () => {
  if (!store.selected.length || isBusy()) return;
  $("#name").disabled = $("#naming button").disabled = false;
  $("#name").focus();
};
const drawNaming = () => {
  const [first] = store.selected;
  const several = store.selected.length > 1 ? `${store.selected.length} segments` : first ? nameOf(first) : "Choose a segment to name it";
  $("#name-says").textContent = several;
  const off = !store.selected.length || isBusy();
  for (const id of ["name", "delete"]) $(`#${id}`).disabled = off;
  $("#naming button").disabled = off;
  $("#merge").disabled = store.selected.length < 2 || isBusy();
  $("#split").disabled = store.selected.length !== 1 || isBusy();
  $("#solo").disabled = !store.selected.length;
  $("#solo").setAttribute("aria-pressed", store.solo);
  $("#add").disabled = isBusy();
};
export const listNames = () => {
  const own = [...new Set(store.state.segments.filter(({ id }) => store.state.named.includes(id)).map(({ name }) => name))];
  const lists = Object.entries({ "in this video": own, "of the benchmark": store.facts.classes, ...store.studio.taxonomies });
  const seen = new Set();
  const options = [];
  for (const [source, names] of lists)
    for (const name of names) {
      if (seen.has(name)) continue;
      seen.add(name);
      options.push(element("option", { value: name }, source));
    }
  $("#names").replaceChildren(...options);
};

export const toggle = (id, more) => {
  if (!more) choose(store.selected.length === 1 && store.selected[0] === id ? [] : [id]);
  else choose(store.selected.includes(id) ? store.selected.filter((one) => one !== id) : [...store.selected, id]);
};
export const stepSegment = (by) => {
  const ids = store.state.segments.map(({ id }) => id);
  const at = ids.indexOf(store.selected[0]);
  choose([ids[(at + by + ids.length) % ids.length] ?? ids[0]]);
};

const sayAccepted = (text) => store.state.accepted.length && say(text, true);
export const merge = async () => {
  if (store.selected.length < 2) return;
  if (await step("merge", { segments: store.selected, into: store.selected[0] })) sayAccepted("merged in all frames, in accepted ones too");
};
export const remove = () => store.selected.length && step("delete", { segments: store.selected });
export const add = async () => {
  const before = new Set(store.state.segments.map(({ id }) => id));
  if (!(await step("add"))) return;
  const made = store.state.segments.find(({ id }) => !before.has(id));
  choose([made.id]);
  focusName();
};
export const solo = () => {
  store.solo = !store.solo;
  choose(store.selected);
};
export const accept = () => step("accept", { frame: store.frame, accepted: !store.state.accepted.includes(store.frame) });
export const release = () => step("release", { frame: store.frame });
export const propagate = (backwards) => step("propagate", { frame: store.frame, backwards });

let previewing = Promise.resolve();
const preview = () => {
  const [id, num] = [store.selected[0], Number($("#parts").value)];
  $("#parts-says").textContent = num;
  document.body.dataset.preview = "";
  previewing = previewing.then(async () => {
    if (num !== Number($("#parts").value) || $("#splitting").hidden) return;
    document.body.dataset.preview = (await previewSplit(id, num)) ? num : "none";
  });
};
export const startSplit = () => {
  if (store.selected.length !== 1 || isBusy()) return;
  $("#splitting").hidden = false;
  $("#parts").focus();
  preview();
};
export const endSplit = () => {
  if ($("#splitting").hidden) return;
  $("#splitting").hidden = true;
  document.body.dataset.preview = "";
  dropPreview();
};
const split = async () => {
  const fields = { frame: store.frame, segment: store.selected[0], num: Number($("#parts").value) };
  endSplit();
  if (await step("split", fields)) sayAccepted("accepted frames keep the segment whole");
};

const exportNow = async () => {
  $("#export-do").disabled = true;
  const tell = (text) => ($("#export-says").textContent = text);
  tell("…");
  const said = await step("export", { format: $("#format").value, frames: $("#with-frames").checked }, tell);
  $("#export-do").disabled = false;
  if (said) tell([`written to ${said.folder}`, ...said.notes].join(". "));
  document.body.dataset.exported = said ? said.folder : "";
};
const table = (rows) => element("table", { class: "numbers" }, element("tbody", {}, ...rows.map(([name, value]) => element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, value)))));
const shown = (value) => (value === null ? "–" : (100 * value).toFixed(1));
const curve = (frames) => {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "over-time");
  svg.setAttribute("viewBox", "0 0 1000 100");
  svg.setAttribute("preserveAspectRatio", "none");
  const last = Math.max(1, store.facts.num_frames - 1);
  const marks = frames.filter(({ J }) => J !== null).map(({ frame, J }) => {
    const line = document.createElementNS(svg.namespaceURI, "path");
    const x = 5 + (990 * frame) / last;
    line.setAttribute("d", `M${x},98V${98 - 94 * J}`);
    line.setAttribute("stroke", "var(--accent)");
    line.setAttribute("stroke-width", "5");
    line.setAttribute("vector-effect", "non-scaling-stroke");
    return line;
  });
  svg.append(...marks);
  return svg;
};
const score = async () => {
  const said = await step("score");
  if (!said) return;
  const { mIoU, J, F, classes, frames, command } = said;
  const worst = frames.filter((one) => one.J !== null).sort((a, b) => a.J - b.J).slice(0, 3).map((one) => one.frame + 1);
  $("#scores").replaceChildren(
    element("p", {}, `The run's own predictions, with your names, against ${frames.length} frame${frames.length > 1 ? "s" : ""} that you corrected or accepted; per cent.`),
    table([["mIoU", shown(mIoU)], ["J", shown(J)], ["F", shown(F)]]),
    element("p", { class: "note" }, `J of each of these frames, over time${worst.length ? `; lowest in frame ${worst.join(", ")}` : ""}:`), curve(frames),
    table(classes.filter(({ IoU }) => IoU !== null).map(({ name, IoU }) => [name, shown(IoU)])),
    ...(command ? [element("p", { class: "note" }, "The same frames as a benchmark for any model:"), element("pre", {}, command)] : []),
  );
  $("#score-dialog").showModal();
};

export const startPanel = () => {
  $("#naming").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await step("name", { segments: store.selected, name: $("#name").value })) {
      $("#name").value = "";
      $("#view").focus({ preventScroll: true });
    }
  });
  const buttons = { merge, delete: remove, split: startSplit, solo, add, accept, release, "split-do": split, "split-no": endSplit, "export-do": exportNow, score };
  for (const [id, action] of Object.entries(buttons)) $(`#${id}`).addEventListener("click", () => action());
  $("#propagate").addEventListener("click", () => propagate(false));
  $("#back").addEventListener("click", () => propagate(true));
  $("#parts").addEventListener("input", preview);
  $("#stop").addEventListener("click", () => step("stop"));
  $("#undo").addEventListener("click", () => step("undo"));
  $("#redo").addEventListener("click", () => step("redo"));
  $("#save").addEventListener("click", save);
  $("#export").addEventListener("click", () => $("#export-dialog").showModal());
  for (const button of $$("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
  $("#format").replaceChildren(...Object.entries(store.studio.formats).map(([name, says]) => element("option", { value: name }, says)));
};
export const save = async () => (await step("save")) && say("names and masks are saved into the run", true);

export const drawSteps = () => {
  const { state, frame } = store;
  if (!state) return;
  const busy = isBusy();
  const accepted = state.accepted.includes(frame);
  $("#accept").textContent = accepted ? "Accepted" : "Accept frame";
  $("#accept").setAttribute("aria-pressed", accepted);
  for (const id of ["accept", "save", "export", "score"]) $(`#${id}`).disabled = busy;
  $("#propagate").disabled = busy || !state.given.some((one) => one <= frame);
  $("#back").disabled = busy || !state.given.some((one) => one >= frame);
  $("#undo").disabled = busy || !state.undo;
  $("#redo").disabled = busy || !state.redo;
  $("#undo").title = state.undo ? `Undo: ${state.undo} (Ctrl+Z)` : "Nothing to undo";
  $("#redo").title = state.redo ? `Redo: ${state.redo} (Ctrl+Shift+Z)` : "Nothing to redo";
  $("#save").textContent = state.saved ? "Saved" : "Save";
  const corrected = state.frames[frame]?.corrected;
  $("#release").hidden = !corrected || accepted;
  $("#release").disabled = busy;
  $("#truth-says").textContent = accepted ? "this frame is locked" : corrected ? "corrected by hand" : state.frames[frame] && !state.live ? "computed from corrections" : "";
  const { live, work } = state;
  const running = work && !work.finished;
  $("#progress").hidden = !(live || running);
  $("#stop").hidden = !running || ["saving", "export", "score"].includes(work.what);
  if (live) {
    $("#bar").value = live.done / live.total;
    $("#doing").textContent = live.problem ? `interrupted after ${live.done} of ${live.total} frames: ${live.problem}` : `segmenting ${live.done}/${live.total}`;
  } else if (running) {
    $("#bar").value = work.total ? work.done / work.total : 0;
    $("#doing").textContent = `${work.what} ${work.done}/${work.total}`;
  }
  const { live: isLive, complete, num_frames: num, video_length: length } = store.facts;
  $("#interrupted").hidden = isLive || complete;
  $("#interrupted").textContent = `The run was interrupted after ${num} of ${length} frames.`;
};
