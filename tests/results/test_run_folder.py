from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from synthetic_run import SETTINGS, VIDEOS, write_run

from zsvss.results.run_folder import comparability, differing_settings, find_runs, read_run
from zsvss.viz.paper_tables import ablation_table, latex, result_table

OFF = {"model.context": None, "model.context.class_path": "absent", "model.context.init_args.num_clusters": "absent"}


def test_a_run_is_read_from_its_records(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "exact"))
    assert run.name == "exact"
    assert run.scores["mIoU"] == run.scores["VC2"] == 1
    assert list(run.scores)[:3] == ["mIoU", "VC2", "VC4"]
    assert [media.video for media in run.media] == sorted(VIDEOS)
    assert run.timing["modulation"] == 0.5
    assert run.is_complete
    late = read_run(write_run(tmp_path / "late", lag=2, unfinished=True, media=False))
    assert 0 < late.scores["mIoU"] < 1
    assert not late.is_complete
    assert not late.media


def test_sweep_folders_stand_for_their_cells(tmp_path: Path) -> None:
    first, second = (write_run(tmp_path / "sweep" / f"{name}-0123abcd", media=False) for name in ("b", "a"))
    assert find_runs([tmp_path / "sweep"]) == {"a": second, "b": first}
    cells = [{"name": name, "folder": f"{name}-0123abcd"} for name in ("b", "a", "never_started")]
    (tmp_path / "sweep" / "sweep.json").write_text(json.dumps({"cells": cells}))
    assert list(find_runs([tmp_path / "sweep"])) == ["b", "a", "never_started"]
    assert list(find_runs([second, tmp_path / "sweep"])) == ["a", "b", "never_started"], "no run twice"
    (tmp_path / "sweep" / "sweep.json").write_text("{")
    with pytest.raises(ValueError, match=r"sweep\.json is damaged"):
        find_runs([tmp_path / "sweep"])


def test_names_stay_different(tmp_path: Path) -> None:
    folders = [tmp_path / "x" / "run-00000000", tmp_path / "x" / "run-11111111", tmp_path / "y" / "run-11111111"]
    names = list(find_runs([write_run(folder, media=False) for folder in folders]))
    assert names == ["run-00000000", str(folders[1]), str(folders[2])]


def test_ablation_in_the_papers_layout(tmp_path: Path) -> None:
    no_blending = {"model.modulation.init_args.blend": False, "model.context.init_args.num_clusters": 10}
    runs = [
        read_run(write_run(tmp_path / "full", media=False)),
        read_run(write_run(tmp_path / "no_context", lag=1, settings=OFF, media=False)),
    ]
    table = ablation_table(runs)
    assert table.columns == ["Run", "Scene context", "Refinement", "Modulation", "mIoU", "VC2", "VC4"]
    assert [[str(cell) for cell in row[:4]] for row in table.rows] == [
        ["full", "✓", "✓", "✓"],
        ["no_context", "–", "✓", "✓"],
    ]
    assert table.markdown().splitlines()[2] == "| full | ✓ | ✓ | ✓ | **100.0** | **100.0** | **100.0** |"
    assert r"no\_context &  & \checkmark & \checkmark & " in table.latex()
    assert r"\textbf{100.0}" in table.latex()

    runs.append(read_run(write_run(tmp_path / "other", settings=no_blending, media=False)))
    table = ablation_table(runs)
    assert table.columns[4:6] == ["Blending", "VC2"] or table.columns[4] == "Blending"
    assert [str(row[4]) for row in table.rows] == ["✓", "✓", "–"]
    assert "Injection" not in table.columns, "the same in all runs"
    assert differing_settings([runs[0], runs[2]]) == [["context.num_clusters = 20"], ["context.num_clusters = 10"]]
    assert differing_settings(runs[:2]) == [[], []], "what lies below a part that is off has the part's column"


def test_another_class_is_none_of_the_papers_components(tmp_path: Path) -> None:
    masked = [key for key in SETTINGS if key.startswith("model.modulation")]
    no_modulation = {**dict.fromkeys(masked, "absent"), "model.modulation": None}
    fast = {
        **dict.fromkeys(masked, "absent"),
        "model.modulation.class_path": "zsvss.GuidedUpsampling",
        "model.modulation.init_args.eps": 0.003,
    }
    cases = {"no_modulation": no_modulation, "full": {}, "fast": fast}
    runs = [read_run(write_run(tmp_path / name, settings=case, media=False)) for name, case in cases.items()]
    assert [list(run.components.values()) for run in runs] == [
        [True, True, False, False, False],
        [True, True, True, True, True],
        [True, True, False, False, False],
    ]
    assert differing_settings(runs) == [[], [], ["modulation = GuidedUpsampling"]]
    finer = fast | {"model.modulation.init_args.eps": 0.001}
    runs.append(read_run(write_run(tmp_path / "finer", settings=finer, media=False)))
    assert differing_settings(runs)[2:] == [
        ["modulation = GuidedUpsampling", "modulation.eps = 0.003"],
        ["modulation = GuidedUpsampling", "modulation.eps = 0.001"],
    ]
    assert [str(row[3]) for row in ablation_table(runs).rows] == ["–", "✓", "–", "–"]

    alike = ablation_table([runs[2], runs[2]])
    assert alike.columns[3:5] == ["Modulation", "Other settings"]
    told = [[str(cell) for cell in row[3:5]] for row in alike.rows]
    assert told == [["–", "modulation = GuidedUpsampling"]] * 2, "named also where all runs have it"
    assert "Other settings" not in ablation_table([runs[0], runs[0]]).columns, "off is not another class"


def test_results_show_differences_to_the_first(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / name, lag=lag, media=False)) for name, lag in (("late", 2), ("exact", 0))]
    change = 100 * (1 - runs[0].scores["mIoU"])
    assert [str(row[-1]) for row in result_table(runs).rows] == ["", f"+{change:.1f}"]
    assert "Δ" not in result_table(runs[:1]).markdown()


def test_incomplete_runs_win_nothing(tmp_path: Path) -> None:
    runs = [
        read_run(write_run(tmp_path / "late", lag=1, media=False)),
        read_run(write_run(tmp_path / "half", unfinished=True, media=False)),
    ]
    for table in (ablation_table(runs), result_table(runs)):
        late, half = table.markdown().splitlines()[2:]
        assert "**" in late
        assert "**" not in half
        assert half.startswith("| half (1 of 2 videos) |")


def test_scores_that_do_not_exist(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", media=False))
    scores = {**run.summary["numbers"], "test/VC2": math.nan}
    blank = type(run)(**{**vars(run), "summary": {**run.summary, "numbers": scores}})
    row = result_table([blank, run]).markdown().splitlines()[2]
    assert "nan" not in row
    assert "–" in row


def test_runs_that_must_not_be_compared(tmp_path: Path) -> None:
    same = [read_run(write_run(tmp_path / name, media=False)) for name in "ab"]
    assert comparability(same) == []
    naming = {"name": "hungarian", "note": "one to one"}
    other = read_run(write_run(tmp_path / "c", media=False, consistency="complete", naming=naming))
    fewer = read_run(write_run(tmp_path / "d", media=False, unfinished=True))
    told = " ".join(comparability([*same, other, fewer]))
    assert "different consistency protocols: complete, official" in told
    assert "different protocols: first_frame, hungarian" in told
    assert "over different videos" in told


def test_latex_is_escaped() -> None:
    assert latex(r"50% of a_b & c\d") == r"50\% of a\_b \& c\textbackslash{}d"
