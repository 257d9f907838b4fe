// Charts, drawn by Vega-Lite.

const narrow = () => document.body.clientWidth < 640;
const shownRuns = () => data.runs.map((run, index) => ({ ...run, index })).filter((run) => shown.run.has(run.name));
const runScale = () => ({ domain: all.run, range: all.run.map((_, index) => runColor(index)) });
const count = (values, field) => new Set(values.map((value) => value[field])).size;
const barHeight = (runs) => Math.max(7, Math.min(18, 40 / runs));
// Names that the reader gave stand in for those of classes, which the charts go by.
const classAxis = () => ({ labelExpr: `${JSON.stringify(Object.fromEntries(renamed))}[datum.label] || datum.label` });
const isShownClass = (name) => shown.class.has(name) && !hidden.has(name);
const row = (name, title) => ({
  field: name,
  type: "nominal",
  title,
  sort: null,
  axis: { labelLimit: narrow() ? 100 : 200, labelPadding: 6, ticks: false, domain: false, labelOverlap: false, ...(name === "class" ? classAxis() : {}) },
  scale: { paddingInner: 0.2, paddingOuter: 0.1 },
});

const bars = (values, field, title, called = field) => ({
  data: { values },
  mark: { type: "bar", cornerRadiusEnd: 2, tooltip: true },
  height: count(values, field) * (barHeight(shown.run.size) * shown.run.size + 8),
  encoding: {
    y: row(field, null),
    yOffset: { field: "run", sort: all.run, scale: { domain: all.run.filter((name) => shown.run.has(name)) } },
    x: { field: "value", type: "quantitative", title, scale: { domain: [0, 100] }, axis: { tickCount: 5 } },
    color: { field: "run", type: "nominal", title: null, scale: runScale(), legend: runLegend() },
    tooltip: [{ field: called, title: field }, { field: "run" }, { field: "value", title, format: ".2f" }],
  },
});
const runLegend = () =>
  all.run.length > 1
    ? { orient: "top", columns: narrow() ? 1 : 4, values: all.run.filter((name) => shown.run.has(name)), labelLimit: 300 }
    : null;

const charts = {
  classes: () => {
    const values = shownRuns().flatMap((run) =>
      run.classes
        .filter((entry) => isShownClass(entry.name) && entry.iou !== null)
        .map((entry) => ({ class: entry.name, called: className(entry.name), run: run.name, value: 100 * entry.iou })),
    );
    return bars(values, "class", "IoU, per cent", "called");
  },
  videos: () => {
    const score = $("#video-score").value;
    const values = shownRuns().flatMap((run) =>
      run.videos
        .filter((entry) => shown.video.has(entry.video) && entry[score] !== null && entry[score] !== undefined)
        .map((entry) => ({ video: entry.video, run: run.name, value: 100 * entry[score] })),
    );
    return bars(values, "video", `${score.replaceAll("_", " ")}, per cent`);
  },
  confusion: () => {
    const run = data.runs[$("#confusion-run").value];
    const names = [...run.class_names, "(no class)"];
    const total = {};
    for (const [truth, , count] of run.confusion) total[truth] = (total[truth] ?? 0) + count;
    const values = run.confusion
      .map(([truth, predicted, count]) => ({
        truth: names[truth],
        predicted: names[predicted],
        called: [className(names[truth]), className(names[predicted])],
        pixels: count,
        value: (100 * count) / total[truth],
      }))
      .filter((cell) => isShownClass(cell.truth) && !hidden.has(cell.predicted));
    const columns = names.filter((name) => values.some((cell) => cell.predicted === name));
    const rows = names.filter((name) => values.some((cell) => cell.truth === name));
    const side = Math.max(14, Math.min(34, 760 / columns.length));
    const axis = { ticks: false, domain: false, labelLimit: narrow() ? 80 : 140, labelOverlap: false, ...classAxis() };
    const position = {
      y: { field: "truth", type: "nominal", sort: null, scale: { domain: rows }, title: null, axis },
      x: { field: "predicted", type: "nominal", sort: null, scale: { domain: columns }, title: null, axis: { ...axis, labelAngle: -45, orient: "top", labelOverlap: columns.length > 60 } },
    };
    const heat = { domain: [0, 100], range: [css("--heat-low"), css("--heat-high")], interpolate: "lab" };
    const layers = [
      {
        mark: { type: "rect", tooltip: true },
        encoding: {
          color: { field: "value", type: "quantitative", scale: heat, legend: null },
          tooltip: [
            { field: "called[0]", title: "ground truth" },
            { field: "called[1]", title: "predicted" },
            { field: "value", title: "per cent", format: ".2f" },
            { field: "pixels", format: "," },
          ],
        },
      },
    ];
    if (side >= 20) {
      const readable = { condition: { test: "datum.value > 55", value: css("--card") }, value: css("--text") };
      const numbers = { type: "text", fontSize: 10, tooltip: false };
      layers.push({
        transform: [{ filter: "datum.value >= 1" }],
        mark: numbers,
        encoding: { text: { field: "value", format: ".0f" }, color: readable },
      });
    }
    return { data: { values }, encoding: position, layer: layers, height: rows.length * (narrow() ? 22 : side) };
  },
  time: () => {
    const titles = data.stages;
    const order = unique([...Object.keys(titles), ...shownRuns().flatMap((run) => Object.keys(run.timing))]);
    const domain = order.map((stage) => titles[stage] ?? stage);
    const values = shownRuns().flatMap((run) =>
      Object.entries(run.timing).map(([stage, seconds]) => ({
        run: run.name,
        stage: titles[stage] ?? stage,
        order: order.indexOf(stage),
        value: 1000 * seconds,
      })),
    );
    return {
      data: { values },
      mark: { type: "bar", tooltip: true },
      height: 28 * count(values, "run"),
      encoding: {
        y: row("run", null),
        x: { field: "value", type: "quantitative", title: "milliseconds a frame", axis: { tickCount: 6 } },
        order: { field: "order", type: "quantitative" },
        color: {
          field: "stage",
          type: "nominal",
          title: null,
          scale: { domain, range: domain.map((_, index) => runColor(index)) },
          legend: { orient: "top", columns: narrow() ? 2 : 8 },
        },
        tooltip: [{ field: "run" }, { field: "stage" }, { field: "value", title: "ms a frame", format: ".2f" }],
      },
    };
  },
};

const chartConfig = () => ({
  background: null,
  font: "system-ui, sans-serif",
  view: { stroke: null },
  axis: { labelColor: css("--text"), titleColor: css("--muted"), gridColor: css("--line"), labelFontSize: 12, titleFontSize: 12, titleFontWeight: 400 },
  legend: { labelColor: css("--text"), labelFontSize: 12, symbolType: "square" },
});

const views = {};
// Only the last drawing of a chart may end up on the page: embedding takes a moment, and filters are typed fast.
const drawings = {};
const drawChart = async (name) => {
  const place = $(`[data-chart="${name}"]`);
  const turn = (drawings[name] = (drawings[name] ?? 0) + 1);
  const spec = charts[name]();
  if (!spec.data.values.length) {
    place.replaceChildren(element("p", { class: "note" }, "Nothing to show for this choice."));
    return;
  }
  const made = element("div");
  made.style.width = "100%";
  const full = { $schema: "https://vega.github.io/schema/vega-lite/v6.json", width: Math.max(200, place.clientWidth), autosize: { type: "fit-x", contains: "padding" }, config: chartConfig(), ...spec };
  place.style.minHeight = `${place.offsetHeight}px`;
  const measured = element("div");
  measured.style.cssText = "height: 0; overflow: hidden";
  measured.append(made);
  place.append(measured);
  const result = await vegaEmbed(made, full, { renderer: "svg", actions: false, tooltip: { theme: dark.matches ? "dark" : "light" } });
  if (turn !== drawings[name]) {
    result.finalize();
    measured.remove();
    return;
  }
  views[name]?.finalize();
  views[name] = result;
  place.replaceChildren(made);
  place.style.minHeight = "";
};
const drawCharts = () => Promise.all(Object.keys(charts).map(drawChart));
