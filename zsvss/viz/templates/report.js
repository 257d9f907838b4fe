"use strict";
// Draws the report from the JSON in #data: tables' differences, charts (Vega-Lite), the video browser, the filter.
(() => {
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

  // Charts.

  const narrow = () => document.body.clientWidth < 640;
  const shownRuns = () => data.runs.map((run, index) => ({ ...run, index })).filter((run) => shown.run.has(run.name));
  const runScale = () => ({ domain: all.run, range: all.run.map((_, index) => runColor(index)) });
  const count = (values, field) => new Set(values.map((value) => value[field])).size;
  const barHeight = (runs) => Math.max(7, Math.min(18, 40 / runs));
  const row = (name, title) => ({
    field: name,
    type: "nominal",
    title,
    sort: null,
    axis: { labelLimit: narrow() ? 100 : 200, labelPadding: 6, ticks: false, domain: false, labelOverlap: false },
    scale: { paddingInner: 0.2, paddingOuter: 0.1 },
  });

  const bars = (values, field, title) => ({
    data: { values },
    mark: { type: "bar", cornerRadiusEnd: 2, tooltip: true },
    height: count(values, field) * (barHeight(shown.run.size) * shown.run.size + 8),
    encoding: {
      y: row(field, null),
      yOffset: { field: "run", sort: all.run, scale: { domain: all.run.filter((name) => shown.run.has(name)) } },
      x: { field: "value", type: "quantitative", title, scale: { domain: [0, 100] }, axis: { tickCount: 5 } },
      color: { field: "run", type: "nominal", title: null, scale: runScale(), legend: runLegend() },
      tooltip: [{ field }, { field: "run" }, { field: "value", title, format: ".2f" }],
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
          .filter((entry) => shown.class.has(entry.name) && entry.iou !== null)
          .map((entry) => ({ class: entry.name, run: run.name, value: 100 * entry.iou })),
      );
      return bars(values, "class", "IoU, per cent");
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
          pixels: count,
          value: (100 * count) / total[truth],
        }))
        .filter((cell) => shown.class.has(cell.truth));
      const columns = names.filter((name) => values.some((cell) => cell.predicted === name));
      const rows = names.filter((name) => values.some((cell) => cell.truth === name));
      const side = Math.max(14, Math.min(34, 760 / columns.length));
      const axis = { ticks: false, domain: false, labelLimit: narrow() ? 80 : 140, labelOverlap: false };
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
              { field: "truth", title: "ground truth" },
              { field: "predicted" },
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

  // Video browser.

  const state = { video: null, a: 0, b: "", frame: 0, label: null, playing: null };
  const context = Object.fromEntries($$("canvas[data-panel]").map((canvas) => [canvas.dataset.panel, canvas.getContext("2d", { willReadFrequently: true })]));

  const unpack = async ({ height, width, data: packed }, numFrames) => {
    const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const labels = new Uint8Array(await new Response(stream).arrayBuffer());
    const area = height * width;
    for (let index = area; index < numFrames * area; index++) labels[index] += labels[index - area];
    return { height, width, frame: (number) => labels.subarray(number * area, (number + 1) * area) };
  };

  const opened = new Map();
  // Two data sets may have a video of one name.
  const numberOf = (video) => data.videos.indexOf(video);
  const once = (key, make) => {
    if (!opened.has(key)) opened.set(key, make());
    return opened.get(key);
  };
  const maps = (video, run) =>
    once(`${numberOf(video)} ${run}`, async () => {
      const stages = Object.entries(video.runs[run] ?? {});
      const read = await Promise.all(stages.map(([, packed]) => unpack(packed, video.frames.length)));
      return Object.fromEntries(stages.map(([stage], index) => [stage, read[index]]));
    });
  const picture = (video, number) =>
    once(`${numberOf(video)} frame ${number}`, async () => {
      const image = new Image();
      image.src = `data:image/jpeg;base64,${video.frames[number]}`;
      await image.decode();
      const canvas = new OffscreenCanvas(video.width, video.height);
      const pen = canvas.getContext("2d");
      pen.drawImage(image, 0, 0);
      return pen.getImageData(0, 0, video.width, video.height);
    });

  // Label number of every pixel of a panel of height x width; cells of a coarser map are enlarged.
  const enlarged = (map, number, height, width) => {
    const cells = map.frame(number);
    if (map.height === height && map.width === width) return cells;
    const labels = new Uint8Array(height * width);
    for (let y = 0; y < height; y++) {
      const start = Math.floor(((2 * y + 1) * map.height) / (2 * height)) * map.width;
      for (let x = 0; x < width; x++) labels[y * width + x] = cells[start + Math.floor(((2 * x + 1) * map.width) / (2 * width))];
    }
    return labels;
  };

  const paint = (kind, frame, colorOf) => {
    const pen = context[kind];
    const { width, height } = frame;
    if (pen.canvas.width !== width || pen.canvas.height !== height) Object.assign(pen.canvas, { width, height });
    const image = new ImageData(new Uint8ClampedArray(frame.data), width, height);
    if (colorOf) colorOf(image.data, width);
    pen.putImageData(image, 0, 0);
  };
  const blend = (pixels, at, color, weight) => {
    for (let channel = 0; channel < 3; channel++) pixels[at + channel] += weight * (color[channel] - pixels[at + channel]);
  };
  const isEdge = (labels, index, width) =>
    labels[index] !== labels[index + 1] || labels[index] !== labels[index + width] || labels[index] !== labels[index - 1] || labels[index] !== labels[index - width];

  const paintLabels = (kind, frame, labels) => {
    const alpha = $("#opacity").value / 100;
    paint(kind, frame, (pixels, width) => {
      for (let index = 0; index < labels.length; index++) {
        const label = labels[index];
        const lit = state.label === null || label === state.label;
        if (label === NONE) blend(pixels, 4 * index, [0, 0, 0], lit ? 0.55 : 0.8);
        else if (lit) blend(pixels, 4 * index, state.video.labels[label].color, Math.max(alpha, state.label === null ? 0 : 0.55));
        else blend(pixels, 4 * index, [24, 26, 30], 0.75);
        if (state.label !== null && lit && isEdge(labels, index, width)) blend(pixels, 4 * index, [255, 255, 255], 0.95);
      }
    });
  };

  const hex = (name) => [1, 3, 5].map((start) => parseInt(css(name).slice(start, start + 2), 16));
  const paintDifference = (frame, a, b, truth) => {
    const colors = { a: hex("--right-a"), b: hex("--right-b"), neither: hex("--both-wrong") };
    let differing = 0;
    paint("difference", frame, (pixels) => {
      for (let index = 0; index < a.length; index++) {
        const at = 4 * index;
        const grey = 0.45 * (0.3 * pixels[at] + 0.59 * pixels[at + 1] + 0.11 * pixels[at + 2]);
        pixels[at] = pixels[at + 1] = pixels[at + 2] = grey;
        if (a[index] === b[index] || (b === truth && truth[index] === NONE)) continue;
        differing++;
        const right = b === truth ? "b" : a[index] === truth[index] && truth[index] !== NONE ? "a" : b[index] === truth[index] && truth[index] !== NONE ? "b" : "neither";
        blend(pixels, at, colors[right], 0.85);
      }
    });
    return differing / a.length;
  };

  let drawing = 0;
  const drawFrame = async () => {
    const { video, a, b, frame } = state;
    const turn = ++drawing;
    const [pixels, ofA, ofB, truthMap] = await Promise.all([picture(video, frame), maps(video, a), b === "" ? {} : maps(video, b), truthOf(video)]);
    if (turn !== drawing) return;
    const { width, height } = pixels;
    const truth = enlarged(truthMap, frame, height, width);
    const final = enlarged(ofA.final, frame, height, width);
    paint("frame", pixels);
    paintLabels("truth", pixels, truth);
    for (const stage of ["coarse", "refined"]) paintLabels(stage, pixels, enlarged(ofA[stage], frame, height, width));
    paintLabels("final", pixels, final);
    const other = b === "" ? truth : enlarged(ofB.final, frame, height, width);
    const differing = paintDifference(pixels, final, other, truth);
    $("[data-caption='truth']").textContent = video.labelled[frame] ? "" : "(none for this frame)";
    $("[data-caption='difference']").textContent = b === "" && !video.labelled[frame] ? "" : `${(100 * differing).toFixed(1)} % of the frame`;
    $("#slider").value = frame;
    $("#frame-says").textContent = `${video.frame_names[frame]} · ${frame + 1}/${video.frames.length}`;
    document.body.dataset.frame = frame;
    drawTimeline();
  };
  const truthOf = (video) => once(`${numberOf(video)} truth`, () => unpack(video.truth, video.frames.length));

  // For each frame the share of the pixels that a map gives to a label, or, without one, gets right.
  const share = (map, truthMap, number, height, width) => {
    const labels = map.frame(number);
    if (state.label !== null) return labels.reduce((sum, label) => sum + (label === state.label), 0) / labels.length;
    const [ours, truth] = [enlarged(map, number, height, width), enlarged(truthMap, number, height, width)];
    let [known, right] = [0, 0];
    for (let index = 0; index < truth.length; index++) {
      if (truth[index] === NONE) continue;
      known++;
      right += truth[index] === ours[index];
    }
    return known ? right / known : null;
  };
  const curve = (key, map, truthMap) =>
    once(`${numberOf(state.video)} ${key} ${state.label} curve`, () =>
      state.video.frames.map((_, number) => share(map, truthMap, number, state.video.height, state.video.width)),
    );

  const drawTimeline = async () => {
    const { video, a, b, label } = state;
    const [ofA, ofB, truth] = await Promise.all([maps(video, a), b === "" ? {} : maps(video, b), truthOf(video)]);
    const curves = [{ color: runColor(a), values: curve(a, ofA.final, truth), name: data.runs[a].name }];
    if (b !== "") curves.push({ color: runColor(Number(b)), values: curve(b, ofB.final, truth), name: data.runs[b].name });
    if (label !== null) {
      const values = curve("truth", truth, truth).map((value, number) => (video.labelled[number] ? value : null));
      curves.push({ color: css("--muted"), values, name: "ground truth", dash: "4 3" });
    }
    const top = label === null ? 1 : Math.max(0.02, ...curves.flatMap(({ values }) => values));
    const last = Math.max(1, video.frames.length - 1);
    const lines = curves.map(({ color, values, dash }) => {
      const points = values.map((value, number) => (value === null ? null : `${(1000 * number) / last},${96 - (90 * value) / top}`));
      const parts = points.map((point, number) => point && `${points[number - 1] ? "L" : "M"}${point}`).filter(Boolean);
      return `<path d="${parts.join("")}" fill="none" stroke="${color}" stroke-width="2" stroke-dasharray="${dash ?? "none"}" vector-effect="non-scaling-stroke" stroke-linecap="round"/>`;
    });
    const here = (1000 * state.frame) / last;
    lines.push(`<path d="M${here},0V100" stroke="${css("--text")}" stroke-width="1" vector-effect="non-scaling-stroke"/>`);
    const svg = $("#timeline");
    svg.setAttribute("viewBox", "-4 0 1008 100");
    svg.innerHTML = lines.join("");
    const what = label === null ? "Share of the labelled pixels that are right" : `Share of the frame that is ${video.labels[label].name}`;
    const numbers = curves.map(({ name, values, color, dash }) => {
      const mark = element("span", { class: "swatch" });
      mark.style.background = color;
      const value = values[state.frame];
      return element("span", {}, " ", mark, `${name} ${value === null ? "–" : (100 * value).toFixed(1)} %`);
    });
    $("#timeline-says").replaceChildren(`${what}, frame by frame:`, ...numbers);
  };

  const drawLegend = () => {
    const items = state.video.labels.map(({ name, color }, label) => {
      const mark = element("span", { class: "swatch" });
      mark.style.background = `rgb(${color})`;
      const button = element("button", { type: "button", "aria-pressed": label === state.label, "data-label": label }, mark, name);
      button.addEventListener("click", () => highlight(label));
      return element("li", {}, button);
    });
    $("#legend").replaceChildren(...items);
    const [a, b] = [data.runs[state.a].name, state.b === "" ? null : data.runs[state.b].name];
    const kinds = b === null ? [["--right-b", `${a} is wrong`]] : [["--right-a", `only ${a} is right`], ["--right-b", `only ${b} is right`], ["--both-wrong", "they differ, neither is right"]];
    const entries = kinds.map(([color, text]) => {
      const mark = element("span", { class: "swatch" });
      mark.style.background = css(color);
      return element("li", {}, element("span", {}, mark, text));
    });
    $("#difference-legend").replaceChildren(...entries);
  };

  const highlight = (label) => {
    state.label = label === null || label === NONE || label === state.label ? null : label;
    document.body.dataset.label = state.label === null ? "" : state.video.labels[state.label].name;
    for (const button of $$("#legend button")) button.setAttribute("aria-pressed", Number(button.dataset.label) === state.label);
    drawFrame();
  };

  const goTo = (frame) => {
    state.frame = Math.max(0, Math.min(state.video.frames.length - 1, frame));
    drawFrame();
  };

  const openVideo = (index) => {
    state.video = data.videos[index];
    state.label = null;
    document.body.dataset.label = "";
    const having = Object.keys(state.video.runs).map(Number);
    const names = having.map((run) => data.runs[run].name);
    const chooseRuns = (select, blank, wanted) => {
      const options = names.map((name, place) => element("option", { value: having[place] }, name));
      select.replaceChildren(...(blank ? [element("option", { value: "" }, blank)] : []), ...options);
      select.value = wanted;
      return select.value;
    };
    if (!having.includes(state.a)) state.a = having[0];
    chooseRuns($("#run-a"), null, state.a);
    if (state.b !== "" && !having.includes(Number(state.b))) state.b = "";
    chooseRuns($("#run-b"), "ground truth", state.b);
    $("#slider").max = state.video.frames.length - 1;
    $("#video").value = index;
    drawLegend();
    goTo(Math.min(state.frame, state.video.frames.length - 1));
  };

  const listVideos = () => {
    const select = $("#video");
    const many = new Set(data.videos.map(({ dataset }) => dataset)).size > 1;
    const all = data.videos.map((video, index) => [video, index]);
    const listed = all.filter(([{ name }]) => shown.video.has(name));
    const entries = listed.length ? listed : all;
    const title = ({ dataset, name }) => (many ? `${dataset}: ${name}` : name);
    select.replaceChildren(...entries.map(([video, index]) => element("option", { value: index }, title(video))));
    const current = data.videos.indexOf(state.video);
    if (entries.some(([, index]) => index === current)) select.value = current;
    else openVideo(entries[0][1]);
  };
  const stepVideo = (by) => {
    const options = [...$("#video").options].map(({ value }) => Number(value));
    const at = options.indexOf(data.videos.indexOf(state.video)) + by;
    if (options[at] !== undefined) openVideo(options[at]);
  };

  const play = (on) => {
    clearInterval(state.playing);
    state.playing = on ? setInterval(() => goTo((state.frame + 1) % state.video.frames.length), 125) : null;
    $("#play").textContent = on ? "❚❚" : "▶";
    $("#play").setAttribute("aria-label", on ? "Pause" : "Play");
  };

  const startBrowser = () => {
    if (data.runs.length > 1) state.b = String(data.runs.findIndex((_, run) => run > 0 && data.videos[0].runs[run]));
    if (state.b === "-1") state.b = "";
    $("#video").addEventListener("change", (event) => openVideo(Number(event.target.value)));
    $("#run-a").addEventListener("change", (event) => {
      state.a = Number(event.target.value);
      drawLegend();
      drawFrame();
    });
    $("#run-b").addEventListener("change", (event) => {
      state.b = event.target.value;
      drawLegend();
      drawFrame();
    });
    $("#slider").addEventListener("input", (event) => goTo(Number(event.target.value)));
    $("#opacity").addEventListener("input", drawFrame);
    $("#play").addEventListener("click", () => play(!state.playing));
    $("#timeline").addEventListener("click", (event) => {
      const box = event.currentTarget.getBoundingClientRect();
      goTo(Math.round(((event.clientX - box.left) / box.width) * (state.video.frames.length - 1)));
    });
    for (const canvas of $$("canvas[data-panel]"))
      canvas.addEventListener("click", async (event) => {
        const { video, frame } = state;
        const panel = canvas.dataset.panel;
        const box = canvas.getBoundingClientRect();
        const x = Math.min(video.width - 1, Math.floor(((event.clientX - box.left) / box.width) * video.width));
        const y = Math.min(video.height - 1, Math.floor(((event.clientY - box.top) / box.height) * video.height));
        const map = panel === "truth" ? await truthOf(video) : (await maps(video, state.a))[panel] ?? (await maps(video, state.a)).final;
        highlight(enlarged(map, frame, video.height, video.width)[y * video.width + x]);
      });
    document.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("#filter, select, #opacity")) return;
      const actions = {
        ArrowLeft: () => goTo(state.frame - 1),
        ArrowRight: () => goTo(state.frame + 1),
        ArrowUp: () => stepVideo(-1),
        ArrowDown: () => stepVideo(1),
        Home: () => goTo(0),
        End: () => goTo(state.video.frames.length - 1),
        " ": () => play(!state.playing),
        Escape: () => highlight(null),
      };
      const isOurs = event.target.closest("#browser") || isBrowserInView();
      const action = actions[event.key];
      if (!action || !isOurs || (event.key === " " && event.target.closest("button, summary, a"))) return;
      event.preventDefault();
      action();
    });
  };
  // Elsewhere on the page the keys scroll.
  const isBrowserInView = () => {
    const { top, bottom } = $(".panels").getBoundingClientRect();
    return top < innerHeight && bottom > 0;
  };

  // Start.

  const scoresOfVideos = unique(data.runs.flatMap((run) => run.videos.flatMap((entry) => Object.keys(entry)))).filter((name) => data.scores.includes(name));
  $("#video-score").replaceChildren(...scoresOfVideos.map((name) => element("option", { value: name }, name.replaceAll("_", " "))));
  fill($("#confusion-run"), all.run);
  $("#filter").addEventListener("input", applyFilter);
  $("#video-score").addEventListener("change", () => drawChart("videos"));
  $("#confusion-run").addEventListener("change", () => drawChart("confusion"));
  $("#reference")?.addEventListener("change", drawDifferences);
  for (const button of $$("button.copy"))
    button.addEventListener("click", async () => {
      const source = button.parentElement.querySelector(".source");
      getSelection().selectAllChildren(source);
      await navigator.clipboard?.writeText(source.textContent).catch(() => {});
      button.textContent = "Copied";
    });
  const timed = data.runs.filter((run) => Object.keys(run.timing).length).length;
  $("#time-says").textContent = timed
    ? "Of the first process; frames that overlapping clips predict again are paid for twice and counted once."
    : "The runs hold no times.";
  const drawAll = () => {
    colorSwatches();
    if (data.videos.length) {
      drawLegend();
      drawFrame();
    }
    return drawCharts();
  };
  drawDifferences();
  if (data.videos.length) {
    startBrowser();
    listVideos();
  }
  dark.addEventListener("change", drawAll);
  let width = document.body.clientWidth;
  addEventListener("resize", () => {
    if (document.body.clientWidth === width) return;
    width = document.body.clientWidth;
    drawCharts();
  });
  colorSwatches();
  drawCharts().then(() => {
    document.body.dataset.ready = "yes";
  });
})();
