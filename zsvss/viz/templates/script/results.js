// The result table: differences to a run that the reader chooses.

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
  for (const mark of $$(".swatch[data-run]")) mark.style.background = runColor(Number(mark.dataset.run));
};
