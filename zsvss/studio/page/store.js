// What is known: the video's facts, the annotation's state, and what is looked at. Steps go to the server from here.

import { $, $$, css, element } from "./dom.js";

export { $, $$, css, element };

export const store = {
  studio: null, number: 0, facts: null, state: null, frame: 0, selected: [], tool: "select", solo: false, preview: null, playing: false,
};
const listeners = [];
export const onChange = (listener) => listeners.push(listener);
export const changed = (what = "all") => listeners.forEach((listener) => listener(what));

let hiding = null;
export const say = (text, good = false) => {
  clearTimeout(hiding);
  $("#says").textContent = text;
  $("#says").classList.toggle("good", good);
  $("#says").hidden = false;
  hiding = setTimeout(() => ($("#says").hidden = true), good ? 4000 : 9000);
};

export const get = async (path) => {
  const answer = await fetch(`/api/${path}`);
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
};

// A step from the state that is shown. Steps wait for those before them, so that quick ones are all taken. Where the
// state is not the present one any more, the present one is shown, and what waited was made from another one too.
let queue = Promise.resolve();
let refusals = 0;
export const step = (name, fields = {}, tell = say) => {
  const [number, seen] = [store.number, refusals];
  queue = queue.then(() => (seen === refusals && number === store.number && store.state ? send(number, name, fields, tell) : null));
  return queue;
};
const send = async (number, name, fields, tell) => {
  const body = JSON.stringify({ revision: store.state.revision, ...fields });
  const headers = { "Content-Type": "application/json" };
  try {
    const answer = await fetch(`/api/videos/${number}/${name}`, { method: "POST", headers, body });
    if (!answer.ok) {
      tell(await answer.text());
      if (answer.status === 409) {
        refusals += 1;
        await refresh();
      }
      return null;
    }
    const { said, state } = await answer.json();
    if (number === store.number) take(state);
    return said ?? true;
  } catch (error) {
    tell(`the studio does not answer (${error.message}); is it still running in the terminal?`);
    return null;
  }
};

export const refresh = async () => {
  const number = store.number;
  const state = await get(`videos/${number}/state`);
  if (number === store.number && state.revision >= (store.state?.revision ?? 0)) take(state);
};
const take = (state) => {
  const work = state.work;
  if (work?.error && work.error !== store.state?.work?.error) say(work.error);
  store.state = state;
  // Of a segment that was merged what it has become stays chosen.
  const known = new Set(state.segments.map(({ id }) => id));
  store.selected = [...new Set(store.selected.map(root))].filter((id) => known.has(id));
  document.body.dataset.revision = state.revision;
  document.body.dataset.busy = isBusy() ? "yes" : "no";
  changed("state");
};

export const open = async (number) => {
  await queue;
  const facts = await get(`videos/${number}`);
  Object.assign(store, { number, facts, state: null, selected: [], preview: null, solo: false });
  store.frame = Math.min(store.frame, facts.num_frames - 1);
  changed("video");
  await refresh();
};

export const isBusy = () => Boolean(store.state?.live) || Boolean(store.state?.work && !store.state.work.finished);
export const root = (id) => store.state.merged[id] ?? id;
export const segment = (id) => store.state.segments.find((one) => one.id === id);
export const nameOf = (id) => segment(id)?.name ?? "nothing";

// Pixels of each segment of a frame, as segments are now.
export const areasOf = (frame) => {
  const raw = store.state.frames[frame]?.areas ?? store.facts.areas[frame] ?? [];
  const areas = new Map();
  for (const [id, area] of raw) {
    const now = root(id);
    if (now) areas.set(now, (areas.get(now) ?? 0) + area);
  }
  return areas;
};
export const versionOf = (frame) => store.state.frames[frame]?.version ?? (store.facts.live ? null : "original");

export const choose = (ids) => {
  store.selected = ids;
  document.body.dataset.selected = ids.join(" ");
  changed("selection");
};
export const goTo = (frame) => {
  const wanted = Math.max(0, Math.min(store.facts.num_frames - 1, frame));
  if (wanted === store.frame && document.body.dataset.frame === String(wanted)) return;
  store.frame = wanted;
  changed("frame");
};
