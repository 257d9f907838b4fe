"""The page about a GPU, on a CPU at small size: every part of it but the GPU, its clock included."""

import json
import warnings

import pytest
import torch

from zsvss.bench import page as page_module
from zsvss.bench.advice import next_things
from zsvss.bench.command import main
from zsvss.bench.page import Findings, measure, page, read_tests
from zsvss.bench.profiling import Kernel, longest_kernels, num_waits
from zsvss.bench.rows import STAGES, Case, Row

SMALL = ["--page", "--device", "cpu", "--network", "embedded", "--size", "64", "64", "--dtype", "float32"]
JUNIT = """<?xml version="1.0"?><testsuites><testsuite name="pytest" errors="1" failures="2" skipped="3" tests="40"
time="61.5"></testsuite></testsuites>"""


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """All measurements of the smallest clip, as the command writes them, and what it prints."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "tests.xml").write_text(JUNIT.replace('failures="2"', 'failures="0"').replace('errors="1"', 'errors="0"'))
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr(page_module, "_TIMES_EXACT", 1e9)  # the published schedule is in the test of the modes
        patch.setattr("builtins.print", lambda text="", **_: printed.append(text))
        options = ["--frames", "1", "--labels", "2", "--minutes", "60", "--json", str(folder / "gpu.json")]
        assert main([*SMALL, *options, "--tests", str(folder / "tests.xml")]) == 0
    return json.loads((folder / "gpu.json").read_text()), "\n".join(printed)


def test_everything_is_measured_and_told(everything):
    found, printed = everything
    assert [row["mode"] for row in found["rows"]] == ["exact", "fast"]
    for row in found["rows"]:
        stages = sum(row["seconds"].values())
        assert stages == pytest.approx(row["all_seconds"][0], rel=0.01), "the stages' clock is the clip's"
        assert 0 < row["share_of_matrix_rate"] < 2
    assert found["rows"][0]["tflop_per_frame"] > found["rows"][1]["tflop_per_frame"]
    assert len(found["kernels"]) == 10
    assert [kernel["seconds"] for kernel in found["kernels"]] == sorted(
        (k["seconds"] for k in found["kernels"]), reverse=True
    )
    assert [left.partition(" (")[0] for left in found["left_out"]] == ["the published schedule"]
    assert found["seconds"] > 0
    assert printed.startswith("## CPU")
    assert "Tests on the GPU: 37 passed, 0 failed, 3 skipped, 62 s." in printed
    for part in ("| fast |", "| longest kernels of the exact mode |", "aten::", "1. ", "3. "):
        assert part.replace(" |", "") in printed


def test_what_there_is_no_time_for_is_left_out_and_said(monkeypatch):
    ticks = iter(range(0, 10_000, 100))
    row = Row("exact", dict.fromkeys(STAGES, 0.8), [4.0], [4.0])
    monkeypatch.setattr(page_module, "measured", lambda modes, *_: [row, Row("fast", row.seconds, [1.0], [1.0])])
    monkeypatch.setattr(page_module, "modes_of", lambda *_: dict.fromkeys(("exact", "fast", "published")))
    case = Case("sd21", (448, 832), 14, 10, 1.0, 1, 1)
    findings = measure(case, "cpu", "float32", limit=50, clock=lambda: next(ticks))
    assert findings.left_out == ["waits and kernels", "the published schedule (up to 3360 s)"]
    assert findings.seconds == 300
    assert "There was no time for waits and kernels and the published schedule (up to 3360 s)." in page(findings)


def test_the_published_schedule_is_there_if_there_is_time(monkeypatch):
    def measured(modes, *_):
        return [Row(name, dict.fromkeys(STAGES, 0.2), [1.0], [1.0]) for name in modes]

    monkeypatch.setattr(page_module, "measured", measured)
    monkeypatch.setattr(page_module, "modes_of", lambda *_: dict.fromkeys(("exact", "fast", "published"), lambda: None))
    case = Case("sd21", (448, 832), 2, 10, 1.0, 1, 1)
    findings = measure(case, "cpu", "float32", limit=130, clock=lambda: 0.0)
    assert [row.mode for row in findings.rows] == ["exact", "fast", "published"]
    assert findings.left_out == []


def test_failed_tests_are_counted_and_fail_the_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "tests.xml").write_text(JUNIT)
    assert read_tests(tmp_path / "tests.xml") == {"passed": 34, "failed": 3, "skipped": 3, "seconds": 61.5}
    assert read_tests(tmp_path / "absent.xml")["failed"] == 1
    row = Row("exact", dict.fromkeys(STAGES, 0.2), [1.0], [1.0])
    findings = Findings({"device": "CPU"}, Case("embedded", (64, 64), 1, 2, 1.0, 1, 1), [row])
    monkeypatch.setattr(page_module, "measure", lambda *_: findings)
    assert main([*SMALL, "--tests", str(tmp_path / "tests.xml")]) == 1
    assert "34 passed, 3 failed" in capsys.readouterr().out


def test_without_a_gpu_the_page_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--page"]) == 2
    assert "sees no GPU" in capsys.readouterr().err


def test_a_cpu_has_no_waits():
    assert num_waits(lambda: None, "cpu") is None


def test_what_pytorch_says_of_its_own_mode_is_no_wait(monkeypatch):
    modes = []

    def set_mode(mode):
        modes.append(mode)
        warnings.warn("Synchronization debug mode ... does not yet detect all synchronizing operations", stacklevel=1)

    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    found = num_waits(lambda: [warnings.warn("called a synchronizing CUDA operation", stacklevel=1)] * 2, "cuda")
    assert found == 1
    assert modes == ["warn", 0]


def test_kernels_are_those_that_ran():
    matrix = torch.randn(300, 300)
    kernels = longest_kernels(lambda: [matrix @ matrix for _ in range(5)], "cpu")
    assert kernels[0].name == "aten::mm"
    assert kernels[0].calls == 5
    assert sum(kernel.share for kernel in kernels) == pytest.approx(1)


def test_advice_is_what_saves_most():
    row = Row("exact", {"encode": 0.1, "modulation": 0.9}, [1.0], share_of_matrix_rate=0.1, peak_mib=2048)
    kernels = [Kernel("vectorized_elementwise_kernel", 9, 3.0, 0.6), Kernel("ampere_gemm", 5, 2.0, 0.4)]
    first, second, third = next_things(row, waits=1000, kernels=kernels, memory_gib=80.0, num_frames=10)
    assert first.startswith("modulation takes 90% of the time at 10% of the matrix rate")
    assert "`vectorized_elementwise_kernel`" in second
    assert "60%" in second
    assert "2.0 GiB leaves most of 80 GiB free" in third
    slow = next_things(row, waits=1_000_000, kernels=kernels, memory_gib=None, num_frames=10)
    assert slow[0].startswith("The host waits 1000000 times")
