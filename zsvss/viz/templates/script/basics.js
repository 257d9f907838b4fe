// The page's data, helpers and the filter. The scripts of this folder are the body of one function.

const data = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const percent = (value, digits = 1) => (value === null || value === undefined ? "–" : (100 * value).toFixed(digits));
const NONE = 255;
const NUM_COLORS = 8;
const runColor = (run) => css(`--run-${run % NUM_COLORS}`);
const unique = (names) => [...new Set(names)];

const swatch = (color) => {
  const mark = element("span", { class: "swatch" });
  mark.style.background = color;
  return mark;
};
const fill = (select, names, chosen = 0) => {
  select.replaceChildren(...names.map((name, index) => element("option", { value: index }, name)));
  select.value = chosen;
};

// Two data sets, or two runs of predictions, may have a video of one name.
const severalDatasets = new Set(data.videos.map(({ dataset }) => dataset)).size > 1;
const titleOf = ({ dataset, name }) => (severalDatasets ? `${dataset}: ${name}` : name);

// Filter. Words that match a run, a class or a video leave only the matching ones of that kind; a kind in which
// nothing matches stays whole.

const all = {
  run: data.runs.map((run) => run.name),
  class: unique(data.runs.flatMap((run) => run.classes.map((row) => row.name))),
  video: unique([...data.runs.flatMap((run) => run.videos.map((row) => row.video)), ...data.videos.map(({ name }) => name)]),
};
const shown = { run: new Set(all.run), class: new Set(all.class), video: new Set(all.video) };
const whenFiltered = [];

const applyFilter = () => {
  const words = $("#filter").value.toLowerCase().split(/[\s,]+/).filter(Boolean);
  const says = [];
  for (const [kind, names] of Object.entries(all)) {
    const texts = (name) => [name, ...(kind === "class" ? [className(name)] : [])].map((text) => text.toLowerCase());
    const matching = names.filter((name) => words.some((word) => texts(name).some((text) => text.includes(word))));
    shown[kind] = new Set(matching.length ? matching : names);
    if (matching.length) says.push(`${matching.length} of ${names.length} ${kind === "class" ? "classes" : `${kind}s`}`);
  }
  $("#filter-says").textContent = words.length ? says.join(" · ") || "nothing matches" : "";
  for (const row of $$("[data-kind='run']")) row.hidden = !shown.run.has(row.dataset.name);
  for (const follow of whenFiltered) follow();
};
