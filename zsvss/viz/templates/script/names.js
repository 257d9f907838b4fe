// Names that the reader gave, what the reader hid, and the chips by which both are done.

const renamed = new Map();
const hidden = new Set();
const tidy = (name) => name.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, " ").trim().slice(0, 80);
// A class is the same in all videos; a segment or a cluster is its video's and run's own. Of segments of one name, which
// are no class of the benchmark, each has its number as well.
const keyOf = (video, label) => {
  const row = video.labels[label];
  if (row.is_class) return row.name;
  const isAlone = video.labels.every((other) => other === row || other.name !== row.name || other.run !== row.run);
  return [titleOf(video), data.runs[row.run].name, row.name, ...(isAlone || row.id === undefined ? [] : [row.id])].join("/");
};
const className = (name) => renamed.get(name) ?? name;
const labelName = (video, label) => renamed.get(keyOf(video, label)) ?? video.labels[label].name;
const isHidden = (video, label) => hidden.has(keyOf(video, label));
const whenNamed = [];

const changed = () => {
  keepView(true);
  for (const follow of whenNamed) follow();
};
const rename = (key, name, original) => {
  const wanted = tidy(name);
  if (!wanted || wanted === original) renamed.delete(key);
  else renamed.set(key, wanted);
  changed();
};
const hide = (key, on = true) => {
  if (on) hidden.add(key);
  else hidden.delete(key);
  changed();
};
const showAll = () => {
  hidden.clear();
  changed();
};

const icon = (path) => {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  const line = document.createElementNS(svg.namespaceURI, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
};
const PENCIL = "M3 13l.7-3L11 2.7 13.3 5 6 12.3zM9.6 4.1l2.3 2.3";
const EYE = "M1.5 8C4.5 3.2 11.5 3.2 14.5 8 11.5 12.8 4.5 12.8 1.5 8zM8 6.2a1.8 1.8 0 1 0 .01 0z";
const CLOSED = `${EYE}M3 14L13 2`;

const edit = (item, video, label) => {
  const original = video.labels[label].name;
  const input = element("input", { type: "text", value: labelName(video, label), maxlength: 80, "aria-label": `New name of ${original}` });
  let open = true;
  const finish = (save) => {
    if (!open) return;
    open = false;
    if (save) rename(keyOf(video, label), input.value, original);
    else changed();
  };
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === "Escape") finish(event.key === "Enter");
  });
  input.addEventListener("blur", () => finish(true));
  item.replaceChildren(input);
  input.focus();
  input.select();
};

// What a cluster was named.
const becameOf = (video, ofClass) => (ofClass === null ? "void" : video.labels[ofClass].is_class ? labelName(video, ofClass) : "no class");
// A label with its colour: highlights, renames, hides. The many clusters are renamed and hidden by keys alone.
const chip = (video, label) => {
  const { color, class: ofClass } = video.labels[label];
  const [name, off] = [labelName(video, label), isHidden(video, label)];
  const text = ofClass === undefined ? name : `${name} → ${becameOf(video, ofClass)}`;
  const main = element("button", { type: "button", class: "name", "aria-pressed": label === state.label, "data-label": label }, swatch(`rgb(${color})`), text);
  const pen = element("button", { type: "button", class: "tool", "aria-label": `Rename ${name}`, title: "Rename" }, icon(PENCIL));
  const eye = element("button", { type: "button", class: "tool", "aria-label": `${off ? "Show" : "Hide"} ${name}`, title: off ? "Show" : "Hide" }, icon(off ? CLOSED : EYE));
  const tools = ofClass === undefined ? [pen, eye] : [];
  const item = element("li", { class: off ? "chip off" : "chip", "data-chip": label }, main, ...tools);
  main.addEventListener("click", () => highlight(label));
  pen.addEventListener("click", () => edit(item, video, label));
  eye.addEventListener("click", () => hide(keyOf(video, label), !off));
  return item;
};
// What undoes the reader's choices, where there are any.
const undoChips = () => {
  const made = [];
  const add = (id, text, action) => {
    const button = element("button", { type: "button", id }, text);
    button.addEventListener("click", action);
    made.push(element("li", { class: "chip" }, button));
  };
  if (hidden.size) add("show-all", `Show all (${hidden.size} hidden)`, showAll);
  if (renamed.size)
    add("original-names", "Original names", () => {
      renamed.clear();
      changed();
    });
  return made;
};
