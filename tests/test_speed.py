"""The benchmark of the modes: its command, and the parts that make its comparison one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from zsvss.backbones import embedded
from zsvss.speed import Row, agreement, count
from zsvss.stages.refinement import CorrespondenceRefinement
from zsvss.stand_ins import RandomWeights, SparseLabels


def test_modes_beside_the_published_schedule(tmp_path):
    options = ["--size", "64", "64", "--frames", "1", "--labels", "2", "--present", "1", "--repeats", "1"]
    command = [sys.executable, "-m", "zsvss.run", "bench", *options, "--json", str(tmp_path / "bench.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    (case,) = json.loads((tmp_path / "bench.json").read_text())["cases"]
    rows = {row["mode"]: row for row in case["rows"]}
    assert list(rows) == ["published", "published, through disk", "exact", "fast, modulated", "fast"]
    assert all(mode in done.stdout for mode in rows)
    assert rows["published"]["agreement"] >= 0.999
    tflop = [rows[mode]["tflop_per_frame"] for mode in ("published", "exact", "fast, modulated", "fast")]
    assert tflop == sorted(tflop, reverse=True)
    assert len(set(tflop)) == 4
    assert rows["exact"]["labels_per_frame"] == 2


def test_random_weights_are_built_once(tmp_path):
    (tmp_path / "vae").mkdir()
    shutil.copy(Path(embedded.__file__).parent / "vae" / "config.json", tmp_path / "vae")
    weights = RandomWeights(tmp_path)
    first, second = (weights.load(AutoencoderKL, "vae") for _ in range(2))
    assert first is not second
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(one is other for one, other in pairs)
    with pytest.raises(FileNotFoundError, match="run the benchmark from the repository"):
        weights.config("unet")


@pytest.mark.parametrize(("present", "num_shown"), [(1.0, 5), (0.6, 3), (0.01, 1)])
def test_sparse_labels_show_a_share_of_them(present, num_shown):
    labels_Tn = torch.arange(40).view(2, 20) % 5
    refinement = SparseLabels(CorrespondenceRefinement(), 5, present)
    features_Tnc = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(0))
    shown_Tn, _ = refinement(features_Tnc, labels_Tn, (4, 5))
    assert max(len(labels_n.unique()) for labels_n in shown_Tn) == num_shown
    assert set(shown_Tn.unique().tolist()) <= set(range(5))


def test_agreement_knows_no_names():
    labels = torch.tensor([[0, 0, 1, 2]])
    assert agreement(labels, torch.tensor([[2, 2, 0, 1]])) == 1
    assert agreement(labels, torch.tensor([[2, 2, 2, 1]])) == 0.75


def test_attention_is_counted():
    query = torch.randn(2, 3, 16, 8)

    def attend():
        return torch.nn.functional.scaled_dot_product_attention(query, query, query), {}

    row = Row("attention")
    count(attend, row, num_frames=2, device="cpu")
    products = 2 * (2 * 2 * 3 * 16 * 16 * 8)  # two, of a multiplication and an addition each
    assert row.tflop_per_frame * 1e12 == pytest.approx(products / 2)
