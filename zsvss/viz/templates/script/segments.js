// Segments of predictions: the frames that each is in, and a table.

// First and last frame of each stretch without a gap.
const stretches = (areas) => {
  const found = [];
  areas.forEach((area, number) => {
    if (!area) return;
    if (areas[number - 1]) found.at(-1)[1] = number;
    else found.push([number, number]);
  });
  return found;
};

const trackOf = (video, label, areas) => {
  const rects = stretches(areas).map(([first, last]) => `<rect x="${first}" y="0" width="${last - first + 1}" height="1" fill="rgb(${video.labels[label].color})"/>`);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${areas.length} 1`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("data-track", label);
  svg.innerHTML = `${rects.join("")}<path class="now"/>`;
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect();
    goTo(Math.floor(((event.clientX - box.left) / box.width) * areas.length));
  });
  const button = element("button", { type: "button", "aria-pressed": label === state.label, "data-label": label }, swatch(`rgb(${video.labels[label].color})`), labelName(video, label));
  button.addEventListener("click", () => highlight(label));
  return [button, svg];
};

const markFrame = () => {
  for (const mark of $$("#tracks .now")) mark.setAttribute("d", `M${state.frame + 0.5},0V1`);
};

const drawSegments = async () => {
  const { video } = state;
  const labels = video.labels.map((_, label) => label).filter((label) => !isHidden(video, label));
  $("#segments-of").textContent = titleOf(video);
  $("#segment-table tbody").replaceChildren(
    ...labels.map((label) => {
      const row = video.labels[label];
      const cells = [row.id, row.num_frames, row.first + 1, row.last + 1, `${percent(row.mean_area / video.num_pixels)}`, `${percent(row.largest_area / video.num_pixels)}`, row.num_parts];
      const head = element("th", { scope: "row" }, swatch(`rgb(${row.color})`), labelName(video, label));
      return element("tr", {}, head, ...cells.map((text) => element("td", {}, String(text))));
    }),
  );
  const areas = await piece(video, "areas").catch(() => null); // the browser says what is missing
  if (areas && video === state.video) $("#tracks").replaceChildren(...labels.flatMap((label) => trackOf(video, label, areas[label])));
  markFrame();
};
