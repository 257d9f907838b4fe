// What happens when the page has been read. A page of predictions has no result table and no charts.

const hasScores = Boolean($("#results"));
const hasVideos = data.videos.length > 0;
const startScores = () => {
  const scoresOfVideos = unique(data.runs.flatMap((run) => run.videos.flatMap((entry) => Object.keys(entry)))).filter((name) => data.scores.includes(name));
  $("#video-score").replaceChildren(...scoresOfVideos.map((name) => element("option", { value: name }, name.replaceAll("_", " "))));
  fill($("#confusion-run"), all.run);
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
  whenFiltered.push(drawCharts);
  whenNamed.push(() => ["classes", "confusion"].forEach(drawChart));
  colorSwatches();
  drawDifferences();
};
const drawAll = () => {
  if (hasVideos) {
    drawLegend();
    drawFrame();
  }
  if (!hasScores) return null;
  colorSwatches();
  return drawCharts();
};

const params = applyView();
if (hasScores) startScores();
else {
  whenOpened.push(drawSegments);
  whenNamed.push(drawSegments);
  whenDrawn.push(markFrame);
}
if (hasVideos) {
  startBrowser();
  startKeys();
  whenFiltered.push(listVideos);
  whenNamed.push(drawLegend, drawFrame);
  openView(params);
  listVideos();
}
$("#filter").addEventListener("input", applyFilter);
addEventListener("hashchange", () => {
  const chosen = applyView();
  if (hasVideos) openView(chosen);
  for (const follow of whenNamed) follow();
  showSection();
});
dark.addEventListener("change", drawAll);
let width = document.body.clientWidth;
addEventListener("resize", () => {
  if (document.body.clientWidth === width) return;
  width = document.body.clientWidth;
  if (hasScores) drawCharts();
});
Promise.resolve(hasScores ? drawCharts() : null).then(() => {
  showSection();
  document.body.dataset.ready = "yes";
});
