// What happens when the page has been read.

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
