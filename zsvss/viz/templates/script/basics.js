// The page's data, helpers, the filter and the result table. The scripts of this folder are the body of one function.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (selector) => document.querySelector(selector);
const $$ = (selector) => [...document.querySelectorAll(selector)];
const dark = matchMedia("(prefers-color-scheme: dark)");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const percent = (value) => (value === null || value === undefined ? "–" : (100 * value).toFixed(2));
const NONE = 255;
const NUM_COLORS = 8;
const runColor = (run) => css(`--run-${run % NUM_COLORS}`);

const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};
const fill = (select, names, chosen = 0) => {
  select.replaceChildren(...names.map((name, index) => element("option", { value: index }, name)));
  select.value = chosen;
};

// Filter. Words that match a run, a class or a video leave only the matching ones of that kind; a kind in which
// nothing matches stays whole.

const unique = (names) => [...new Set(names)];
const all = {
  run: data.runs.map((run) => run.name),
  class: unique(data.runs.flatMap((run) => run.classes.map((row) => row.name))),
  video: unique(data.runs.flatMap((run) => run.videos.map((row) => row.video))),
};
const shown = { run: new Set(all.run), class: new Set(all.class), video: new Set(all.video) };

const applyFilter = () => {
  const words = $("#filter").value.toLowerCase().split(/[\s,]+/).filter(Boolean);
  const says = [];
  for (const [kind, names] of Object.entries(all)) {
    const matching = names.filter((name) => words.some((word) => name.toLowerCase().includes(word)));
    shown[kind] = new Set(matching.length ? matching : names);
    if (matching.length) says.push(`${matching.length} of ${names.length} ${kind === "class" ? "classes" : `${kind}s`}`);
  }
  $("#filter-says").textContent = words.length ? says.join(" · ") || "nothing matches" : "";
  for (const row of $$("[data-kind='run']")) row.hidden = !shown.run.has(row.dataset.name);
  drawCharts();
  if (data.videos.length) listVideos();
};

// Result table.

const drawDifferences = () => {
  const reference = Number($("#reference")?.value ?? 0);
  for (const row of $$("#result-table tbody tr")) {
    const run = Number(row.dataset.run);
    for (const cell of row.querySelectorAll("td[data-score]")) {
      const values = [data.runs[run], data.runs[reference]].map(({ scores }) => scores[cell.dataset.score]);
      const note = cell.querySelector("small");
      note.className = "";
      note.textContent = "";
      if (run === reference || values.includes(null)) continue;
      const points = 100 * (values[0] - values[1]);
      note.textContent = (points < 0 ? "−" : "+") + Math.abs(points).toFixed(2);
      note.className = points > 0.005 ? "better" : points < -0.005 ? "worse" : "";
    }
  }
};

const colorSwatches = () => {
  for (const swatch of $$(".swatch[data-run]")) swatch.style.background = runColor(Number(swatch.dataset.run));
};
