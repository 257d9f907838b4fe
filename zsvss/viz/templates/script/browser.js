// The video browser: panels, timeline, legend, and how one moves through videos and frames.

// Predictions have no ground truth: there is nothing to be right or wrong about.
const hasTruth = Boolean(context.truth);
const numFrames = (video) => video.frame_names.length;
const panelMap = async (kind) => (kind === "truth" ? truthOf(state.video) : (await maps(state.video, state.a))[kind]);

let drawing = 0;
const whenDrawn = [];
const drawFrame = async () => {
  const { video, a, b, frame } = state;
  const turn = ++drawing;
  try {
    const [pixels, ofA, ofB, truthMap] = await Promise.all([picture(video, frame), maps(video, a), maps(video, b), hasTruth ? truthOf(video) : null]);
    if (turn !== drawing) return;
    tell(video.notes ?? []);
    const at = (map) => enlarged(map, frame, pixels.height, pixels.width);
    paint("frame", pixels);
    if (ofA.final) paintLabels("final", pixels, at(ofA.final));
    $("[data-figure='final']").hidden = !ofA.final;
    if (hasTruth) {
      const truth = at(truthMap);
      paintLabels("truth", pixels, truth);
      for (const stage of ["coarse", "refined"]) paintLabels(stage, pixels, at(ofA[stage]));
      await drawClusters(ofA.clusters, turn);
      if (turn !== drawing) return;
      const differing = paintDifference(pixels, at(ofA.final), b === "" ? truth : at(ofB.final), truth);
      $("[data-caption='truth']").textContent = video.labelled[frame] ? "" : "(none for this frame)";
      $("[data-caption='difference']").textContent = b === "" && !video.labelled[frame] ? "" : `${percent(differing)} % of the frame`;
    }
  } catch (error) {
    if (turn === drawing) tell([error.message]);
    return;
  }
  $("#slider").value = frame;
  const time = video.frame_times ? ` · ${video.frame_times[frame].toFixed(2)} s` : "";
  $("#frame-says").textContent = `${video.frame_names[frame]} · ${frame + 1}/${numFrames(video)}${time}`;
  document.body.dataset.frame = frame;
  document.body.dataset.video = titleOf(video);
  for (const follow of whenDrawn) follow();
  drawTimeline();
};
const tell = (notes) => $("#browser-says").replaceChildren(...notes.map((note) => element("p", { class: "warning" }, note)));

// Clusters as the method found them. Those that took classes inside the method are known of the first frame alone.
const drawClusters = async (map, turn) => {
  const { video, frame } = state;
  for (const place of [$("[data-figure='clusters']"), $("#cluster-title"), $("#cluster-legend")]) place.hidden = !map;
  if (!map) return;
  const number = Math.min(frame, map.count - 1);
  const pixels = await picture(video, number);
  if (turn !== drawing) return;
  paintLabels("clusters", pixels, enlarged(map, number, pixels.height, pixels.width));
  $("[data-caption='clusters']").textContent = map.count < numFrames(video) ? "(of the first frame)" : "";
};

// For each frame the share of the pixels that a map gives to a label, or, without one, gets right.
const share = (map, truthMap, number, label) => {
  const labels = map.frame(number);
  if (label !== null) return labels.reduce((sum, other) => sum + (other === label), 0) / labels.length;
  const { height, width } = state.video;
  const [ours, truth] = [enlarged(map, number, height, width), enlarged(truthMap, number, height, width)];
  let [known, right] = [0, 0];
  for (let index = 0; index < truth.length; index++) {
    if (truth[index] === NONE) continue;
    known++;
    right += truth[index] === ours[index];
  }
  return known ? right / known : null;
};
const curve = (key, map, truthMap, label) =>
  once(state.video, `${key} ${label} curve`, () => state.video.frame_names.map((_, number) => share(map, truthMap, number, label)));

const scoreCurves = async () => {
  const { video, a, b, label } = state;
  const [ofA, ofB, truth] = await Promise.all([maps(video, a), maps(video, b), truthOf(video)]);
  // A cluster is counted as itself where it is known of every frame, and as its class elsewhere.
  const row = video.labels[label];
  const isCluster = row && row.class !== undefined;
  const bare = isCluster && ofA.clusters?.count === numFrames(video);
  const counted = isCluster && !bare ? row.class : label;
  if (isCluster && counted === null) return { counted, curves: [] };
  const curves = [{ color: runColor(a), values: curve(`${a} ${bare}`, bare ? ofA.clusters : ofA.final, truth, counted), name: data.runs[a].name }];
  if (bare) return { counted, curves };
  if (b !== "") curves.push({ color: runColor(Number(b)), values: curve(b, ofB.final, truth, counted), name: data.runs[b].name });
  if (label !== null) {
    const values = curve("truth", truth, truth, counted).map((value, number) => (video.labelled[number] ? value : null));
    curves.push({ color: css("--muted"), values, name: "ground truth", dash: "4 3" });
  }
  return { counted, curves };
};
const areaCurves = async () => {
  const { video, label } = state;
  const areas = await piece(video, "areas");
  const curves = video.labels.map(({ color }, index) => ({
    color: `rgb(${color})`,
    values: areas[index].map((area) => area / video.num_pixels),
    name: labelName(video, index),
    index,
  }));
  return { counted: label, curves: curves.filter(({ index }) => !isHidden(video, index) && (label === null || index === label)) };
};

const drawTimeline = async () => {
  const { video, label } = state;
  const turn = drawing;
  const { counted, curves } = await (hasTruth ? scoreCurves() : areaCurves());
  if (turn !== drawing) return;
  const top = hasTruth && counted === null ? 1 : Math.max(0.02, ...curves.flatMap(({ values }) => values));
  const last = Math.max(1, numFrames(video) - 1);
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
  $("#timeline-top").textContent = `${percent(top, top < 1 ? 1 : 0)} %`;
  const named = label === null ? "" : labelName(video, counted ?? label);
  const what = label !== null ? `Share of the frame that is ${named}` : hasTruth ? "Share of the labelled pixels that are right" : "Share of the frame that each segment has";
  const numbers = curves.flatMap(({ name, values, color }) => [" ", element("span", {}, swatch(color), `${name} ${percent(values[state.frame])} %`)]);
  $("#timeline-says").replaceChildren(`${what}, frame by frame:`, ...numbers);
};

const drawLegend = () => {
  const { video, a, b } = state;
  const rows = video.labels.map((row, label) => ({ ...row, label }));
  const clusters = rows.filter((row) => row.class !== undefined);
  const labels = rows.filter((row) => row.class === undefined);
  $("#legend").replaceChildren(...labels.map(({ label }) => chip(video, label)), ...undoChips());
  if (!hasTruth) return;
  $("#cluster-legend").replaceChildren(...clusters.filter(({ run }) => run === a).map(({ label }) => chip(video, label)));
  const [one, other] = [data.runs[a].name, b === "" ? null : data.runs[b].name];
  const kinds = other === null ? [["--right-b", `${one} is wrong`]] : [["--right-a", `only ${one} is right`], ["--right-b", `only ${other} is right`], ["--both-wrong", "they differ, neither is right"]];
  $("#difference-legend").replaceChildren(...kinds.map(([color, text]) => element("li", {}, element("span", {}, swatch(css(color)), text))));
};

const highlight = (label) => {
  state.label = label === null || label === NONE || label === state.label ? null : label;
  document.body.dataset.label = state.label === null ? "" : labelName(state.video, state.label);
  for (const button of $$("button[data-label]")) button.setAttribute("aria-pressed", Number(button.dataset.label) === state.label);
  keepView();
  drawFrame();
};
const stepLabel = (by) => {
  const { video, a } = state;
  const isOurs = (label) => (video.labels[label].run ?? a) === a && !isHidden(video, label);
  const shownLabels = video.labels.map((_, label) => label).filter(isOurs);
  const at = shownLabels.indexOf(state.label);
  const next = at < 0 ? (by > 0 ? 0 : shownLabels.length - 1) : at + by;
  if (shownLabels[next] !== undefined) highlight(shownLabels[next]);
};

const goTo = (frame) => {
  state.frame = Math.max(0, Math.min(numFrames(state.video) - 1, frame));
  keepView();
  drawFrame();
};

const defaultOther = () => {
  if (!hasTruth) return "";
  return String(state.video.runs.find((run) => run > 0 && data.videos[0].runs.includes(run)) ?? "");
};

const whenOpened = [];
const openVideo = (index, label = null) => {
  state.video = data.videos[index];
  state.label = label;
  document.body.dataset.label = label === null ? "" : labelName(state.video, label);
  const having = state.video.runs;
  if (!having.includes(state.a)) state.a = having[0];
  if (state.b !== "" && !having.includes(Number(state.b))) state.b = "";
  if (hasTruth) {
    const options = () => having.map((run) => element("option", { value: run }, data.runs[run].name));
    $("#run-a").replaceChildren(...options());
    $("#run-a").value = state.a;
    $("#run-b").replaceChildren(element("option", { value: "" }, "ground truth"), ...options());
    $("#run-b").value = state.b;
  }
  $("#slider").max = numFrames(state.video) - 1;
  $("#video").value = index;
  drawLegend();
  for (const follow of whenOpened) follow();
  goTo(state.frame);
};

const listVideos = () => {
  const select = $("#video");
  const entries = data.videos.map((video, index) => [video, index]);
  const matching = entries.filter(([{ name }]) => shown.video.has(name));
  const listed = matching.length ? matching : entries;
  select.replaceChildren(...listed.map(([video, index]) => element("option", { value: index }, titleOf(video))));
  const current = data.videos.indexOf(state.video);
  if (listed.some(([, index]) => index === current)) select.value = current;
  else openVideo(listed[0][1]);
};
const stepVideo = (by) => {
  const options = [...$("#video").options].map(({ value }) => Number(value));
  const at = options.indexOf(data.videos.indexOf(state.video)) + by;
  if (options[at] !== undefined) openVideo(options[at]);
};

const play = (on) => {
  clearInterval(state.playing);
  state.playing = on ? setInterval(() => goTo((state.frame + 1) % numFrames(state.video)), 125) : null;
  $("#play").textContent = on ? "❚❚" : "▶";
  $("#play").setAttribute("aria-label", on ? "Pause" : "Play");
};

// As the page's address has it.
const openView = (params) => {
  const index = Math.max(0, data.videos.findIndex((video) => titleOf(video) === params.get("video")));
  const number = (name) => data.runs.findIndex((run) => run.name === name);
  const video = (state.video = data.videos[index]);
  state.a = Math.max(0, number(params.get("run")));
  const other = number(params.get("with"));
  state.b = !params.has("with") ? defaultOther() : other < 0 ? "" : String(other);
  state.frame = (Math.round(Number(params.get("frame"))) || 1) - 1;
  const strength = Number(params.get("colour") ?? FULL);
  $("#opacity").value = Number.isFinite(strength) ? strength : FULL;
  const label = video.labels.findIndex((_, at) => keyOf(video, at) === params.get("label"));
  openVideo(index, label < 0 ? null : label);
};

const startBrowser = () => {
  $("#video").addEventListener("change", (event) => openVideo(Number(event.target.value)));
  const chooseRun = (key, value) => {
    state[key] = value;
    keepView();
    drawLegend();
    drawFrame();
  };
  $("#run-a")?.addEventListener("change", (event) => chooseRun("a", Number(event.target.value)));
  $("#run-b")?.addEventListener("change", (event) => chooseRun("b", event.target.value));
  $("#slider").addEventListener("input", (event) => goTo(Number(event.target.value)));
  $("#opacity").addEventListener("input", () => {
    keepView();
    drawFrame();
  });
  $("#play").addEventListener("click", () => play(!state.playing));
  $("#timeline").addEventListener("click", (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    goTo(Math.round(((event.clientX - box.left) / box.width) * (numFrames(state.video) - 1)));
  });
  for (const canvas of $$("canvas[data-panel]"))
    canvas.addEventListener("click", async (event) => {
      const { video, frame } = state;
      const box = canvas.getBoundingClientRect();
      const x = Math.min(video.width - 1, Math.floor(((event.clientX - box.left) / box.width) * video.width));
      const y = Math.min(video.height - 1, Math.floor(((event.clientY - box.top) / box.height) * video.height));
      const map = (await panelMap(canvas.dataset.panel)) ?? (await panelMap("final"));
      if (map) highlight(enlarged(map, Math.min(frame, map.count - 1), video.height, video.width)[y * video.width + x]);
    });
};
