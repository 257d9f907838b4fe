"""The notebook of the documentation runs from its first cell to its last, and shows what it says."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "docs" / "notebooks" / "own_video.ipynb"


@pytest.fixture(scope="module")
def outputs() -> list[dict]:
    """Outputs of all cells, in order; a cell that fails raises."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOK.parent)}})
    client.execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_it_prints_a_segmentation_of_the_frames_own_size_and_its_scores(outputs):
    printed = "".join(output.get("text", "") for output in outputs if output.get("name") == "stdout")
    assert "labels: (4, 480, 854) torch.int64" in printed
    scores = [float(score) for score in re.findall(r"(\d+\.\d)%", printed)]
    assert len(scores) == 2
    assert 30 < scores[0] <= 100
    assert 50 < scores[1] <= 100


def test_it_draws_every_intermediate(outputs):
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5


def test_it_is_stored_without_outputs():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert not [cell for cell in cells if cell.get("outputs")]
