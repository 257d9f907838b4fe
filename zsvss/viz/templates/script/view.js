// What the reader chose, kept in the page's address: a reload, or a link that is shared, shows the same.

const state = { video: null, a: 0, b: "", frame: 0, label: null, playing: null, section: "" };
const FULL = 70; // strength of colours, unless it was chosen

const readView = () => {
  const hash = location.hash.slice(1);
  return new URLSearchParams(hash.includes("=") ? hash : hash && `at=${hash}`);
};

const writeView = () => {
  const params = new URLSearchParams();
  const { video, a, b, frame, label } = state;
  if (video) {
    if (data.videos.indexOf(video)) params.set("video", titleOf(video));
    if (a !== video.runs[0]) params.set("run", data.runs[a].name);
    if (b !== defaultOther()) params.set("with", b === "" ? "" : data.runs[b].name);
    if (frame) params.set("frame", frame + 1);
    if (label !== null) params.set("label", keyOf(video, label));
    if (Number($("#opacity").value) !== FULL) params.set("colour", $("#opacity").value);
  }
  const section = state.section || (params.toString() ? "browser" : "");
  if (section) params.set("at", section);
  for (const [key, name] of renamed) params.set(`name:${key}`, name);
  for (const key of hidden) params.append("hide", key);
  const address = location.href.split("#")[0] + (params.toString() && `#${params}`);
  if (address !== location.href) history.replaceState(null, "", address);
};
// Not at every frame of a video that plays: browsers slow pages down that change their address all the time.
let soon = null;
const keepView = (now = false) => {
  clearTimeout(soon);
  if (now) writeView();
  else soon = setTimeout(writeView, 250);
};
addEventListener("pagehide", writeView);

const applyView = () => {
  const params = readView();
  renamed.clear();
  hidden.clear();
  for (const [key, value] of params) {
    if (key === "hide") hidden.add(value);
    else if (key.startsWith("name:") && tidy(value)) renamed.set(key.slice("name:".length), tidy(value));
  }
  state.section = $$("section[id]").some(({ id }) => id === params.get("at")) ? params.get("at") : "";
  return params;
};
const showSection = () => {
  // After a reload the browser scrolls to where the reader was.
  const [arrival] = performance.getEntriesByType("navigation");
  if (state.section && arrival?.type !== "reload") document.getElementById(state.section).scrollIntoView();
};
for (const link of $$(".bar nav a"))
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    state.section = link.hash.slice(1);
    document.getElementById(state.section).scrollIntoView();
    link.blur();
    keepView(true);
  });
