// The video browser: panels, timeline, legend, and how one moves through videos and frames.

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
