"""The benchmark of the modes: its command, and the parts that make its comparison one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from warm_python import command_line

from zsvss.backbones import embedded
from zsvss.bench import command, modes
from zsvss.bench.meters import agreement, count
from zsvss.bench.modes import Case, Row, compare
from zsvss.bench.stand_ins import RandomWeights, SparseLabels
from zsvss.stages.refinement import CorrespondenceRefinement


def test_modes_beside_the_published_schedule(warm_python, tmp_path):
    options = ["--size", "64", "64", "--frames", "1", "--labels", "2", "--present", "1", "--repeats", "1"]
    (done,) = warm_python.run(command_line(["bench", *options, "--json", tmp_path / "bench.json"], tmp_path))
    assert done.returncode == 0, done.stderr
    (case,) = json.loads((tmp_path / "bench.json").read_text())["cases"]
    rows = {row["mode"]: row for row in case["rows"]}
    assert list(rows) == ["published", "published, through disk", "exact", "fast, modulated", "fast"]
    assert all(mode in done.stdout for mode in rows)
    assert "times published" in done.stdout
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
    with pytest.raises(FileNotFoundError, match=r"has no unet/config\.json"):
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

    counted = count(lambda: torch.nn.functional.scaled_dot_product_attention(query, query, query), "cpu")
    assert counted.flop == 2 * (2 * 2 * 3 * 16 * 16 * 8)  # two products, of a multiplication and an addition each
    assert counted.result.shape == query.shape


def test_a_mode_that_runs_out_of_memory_is_left_out(monkeypatch, capsys):
    counted = []

    def count_the_first(mode, device):
        if counted:
            raise torch.cuda.OutOfMemoryError("Tried to allocate 40 GiB.\nSee the documentation.")
        counted.append(count(mode, device))
        return counted[0]

    monkeypatch.setattr(modes, "count", count_the_first)
    case = Case("embedded", (64, 64), num_frames=1, num_labels=2, present=1.0, repeats=1, published_repeats=0)
    rows = compare(case, "cpu", torch.float32, ["fast"])
    assert [row.mode for row in rows] == ["exact"]
    assert rows[0].share_of_matrix_rate > 0
    reasons = capsys.readouterr().err
    assert "fast is left out" in reasons
    assert "Tried to allocate 40 GiB." in reasons


def test_the_published_schedule_of_the_large_network_runs_once(monkeypatch):
    cases = []
    monkeypatch.setattr(modes, "compare", lambda case, *rest: cases.append(case) or [Row("exact", all_seconds=[1.0])])
    monkeypatch.setattr(modes, "table", lambda case, rows: "")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert command.main(["--device", "cuda", "--network", "sd21"]) == 0
    assert [(case.num_labels, case.repeats, case.published_repeats) for case in cases] == [
        (5, 3, 0),
        (10, 3, 1),
        (20, 3, 0),
    ]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--modes", "publishd", "invalid choice: 'publishd'"),
        ("--repeats", "0", "'0' found, a whole number from 1 up wanted"),
        ("--frames", "0", "'0' found, a whole number from 1 up wanted"),
    ],
)
def test_options_that_make_no_sense_are_refused(capsys, option, value, message):
    with pytest.raises(SystemExit, match="2"):
        command.main([option, value])
    error = capsys.readouterr().err
    assert option in error
    assert message in error
