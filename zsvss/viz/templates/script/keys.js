// Keys work wherever the reader is on the page, unless they are typed into something or scroll it.

const ofLabel = (action) => () => {
  if (state.label !== null) action(state.video, state.label);
};
const keys = {
  ArrowLeft: () => goTo(state.frame - 1),
  ArrowRight: () => goTo(state.frame + 1),
  ArrowUp: () => stepVideo(-1),
  ArrowDown: () => stepVideo(1),
  Home: () => goTo(0),
  End: () => goTo(numFrames(state.video) - 1),
  " ": () => play(!state.playing),
  ",": () => stepLabel(-1),
  ".": () => stepLabel(1),
  Escape: () => highlight(null),
  r: ofLabel((video, label) => {
    const item = $(`[data-chip="${label}"]`);
    if (item) edit(item, video, label);
  }),
  h: ofLabel((video, label) => hide(keyOf(video, label), !isHidden(video, label))),
  a: () => showAll(),
};
// What has a use of its own for a key.
const TYPED = "input:not(#slider), select, textarea, [contenteditable]";
const PRESSED = "button, summary, a";

// A mouse that chose something from a list leaves the keys to the browser.
let byPointer = false;
addEventListener("pointerdown", () => (byPointer = true), true);
addEventListener("keydown", () => (byPointer = false), true);
addEventListener("change", ({ target }) => byPointer && target.matches("select, input[type='range']") && target.blur());

// Keys that scroll a page do so where the browser is out of sight; the others bring it back.
const SCROLLING = ["ArrowUp", "ArrowDown", "Home", "End", " "];
const isInView = () => {
  const { top, bottom } = $(".panels").getBoundingClientRect();
  return top <= innerHeight - 80 && bottom >= 80;
};
const startKeys = () =>
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest(TYPED)) return;
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action || (event.key === " " && event.target.closest(PRESSED))) return;
    const inView = isInView();
    if (SCROLLING.includes(event.key) && !inView && !event.target.closest("#browser")) return;
    event.preventDefault();
    if (!inView) $("#browser").scrollIntoView();
    action();
  });
