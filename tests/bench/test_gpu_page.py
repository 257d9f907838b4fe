"""The page about a GPU, on a CPU at small size: every part of it but the GPU, its clock included."""

import json
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest
import torch

from zsvss.bench import gpu_page as page_module
from zsvss.bench.advice import next_things
from zsvss.bench.command import main
from zsvss.bench.gpu_page import RanTests, measure, page, read_tests
from zsvss.bench.mode_table import STAGES, Case, Row
from zsvss.bench.modes import Measured
from zsvss.bench.profiling import Kernel, longest_kernels, num_waits
from zsvss.segmenter import SegmentedClip

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
        patch.setattr("builtins.print", lambda text="", **_: printed.append(text))
        options = ["--frames", "1", "--labels", "2", "--minutes", "60", "--json", str(folder / "gpu.json")]
        assert main([*SMALL, *options, "--tests", str(folder / "tests.xml")]) == 0
    return json.loads((folder / "gpu.json").read_text()), "\n".join(printed)


def test_everything_is_measured_and_told(everything):
    found, printed = everything
    assert [row["mode"] for row in found["rows"]] == ["exact", "fast", "published"]
    for row in found["rows"]:
        stages = sum(row["seconds"].values())
        assert stages == pytest.approx(row["all_seconds"][0], rel=0.01), "the stages' clock is the clip's"
        assert 0 < row["share_of_matrix_rate"] < 2
        assert len(row["all_seconds"]) == 1
    published, exact, fast = sorted((row["tflop_per_frame"], row["mode"]) for row in found["rows"])[::-1]
    assert [published[1], exact[1], fast[1]] == ["published", "exact", "fast"]
    assert found["rows"][2]["agreement"] >= 0.999, "on the labels of the exact mode"
    assert len(found["kernels"]) == 10
    assert [kernel["seconds"] for kernel in found["kernels"]] == sorted(
        (k["seconds"] for k in found["kernels"]), reverse=True
    )
    assert found["left_out"] == []
    assert found["seconds"] > 0
    assert printed.startswith("## CPU")
    assert "Tests on the GPU: 37 passed, 0 failed, 3 skipped, 62 s." in printed
    for part in ("| fast |", "| published |", "| longest kernels of the exact mode |", "aten::", "1. ", "2. ", "3. "):
        assert part.replace(" |", "") in printed


SECONDS = {"exact": 2.0, "fast": 0.5, "published": 3.0}
CLIP = Case("sd21", (448, 832), 10, 10, 1.0, 1, 1)


def row_of(mode):
    """Made up, of a mode that takes so many seconds a frame."""
    seconds = SECONDS[mode]
    return Row(mode, dict.fromkeys(STAGES, seconds / len(STAGES)), [seconds], [seconds], share_of_matrix_rate=0.2)


class Steps:
    """In place of what is measured: each step takes its seconds, or fails as it is told to."""

    def __init__(self, monkeypatch):
        self.now, self.failures, self.taken, self.without = 0.0, {}, [], ()
        labels = torch.zeros(10, 1, 1, dtype=torch.int64)
        exact = SegmentedClip(labels, labels, labels, {})

        def measured(modes, *_):
            self.take("ours", 2 * 25)
            return Measured([row_of(mode) for mode in modes if mode not in self.without], exact)

        def measured_once(name, mode, reference, *_):
            assert mode == "runs published"
            assert reference is exact
            self.take(name, 30 + 55)
            return row_of(name)

        class Named:
            def __init__(self, *_):
                pass

            def ours(self):
                return {"exact": "runs exact", "fast, modulated": "is not asked for", "fast": "runs fast"}

            def published(self, labels_Thw):
                assert labels_Thw is exact.refined_Thw
                return {"published": "runs published", "published, through disk": "is not asked for"}

        monkeypatch.setattr(page_module, "Modes", Named)
        monkeypatch.setattr(page_module, "measured", measured)
        monkeypatch.setattr(page_module, "measured_once", measured_once)
        monkeypatch.setattr(page_module, "num_waits", lambda *_: self.take("waits", 20) or 7)
        kernels = [Kernel("ampere_gemm", 5, 2.0, 1.0)]
        monkeypatch.setattr(page_module, "longest_kernels", lambda *_: self.take("kernels", 20) or kernels)

    def take(self, name, seconds):
        self.taken.append(name)
        self.now += seconds
        if name in self.failures:
            raise self.failures[name]

    def measure(self, limit):
        return measure(CLIP, "cpu", "float32", limit, clock=lambda: self.now)


@pytest.fixture
def steps(monkeypatch):
    return Steps(monkeypatch)


def modes_in(findings):
    return [row.mode for row in findings.rows]


def test_the_published_schedule_is_there_within_the_minutes_of_make_gpu(steps):
    """At 20 s a clip of the exact mode the schedule takes up to 3 * 20 + 60 s, and 90 are measured before it."""
    findings = steps.measure(limit=90 + 120)
    assert modes_in(findings) == ["exact", "fast", "published"]
    assert findings.left_out == []
    assert (findings.waits, findings.seconds) == (7, 50 + 20 + 20 + 85)
    assert steps.taken == ["ours", "waits", "kernels", "published"], "nothing is run twice"


@pytest.mark.parametrize(
    ("limit", "left_out"),
    [
        (209, ["the published schedule (no time for up to 120 s)"]),
        (89, ["kernels (no time for up to 20 s)", "the published schedule (no time for up to 120 s)"]),
        (
            50,
            [
                "waits (no time for up to 20 s)",
                "kernels (no time for up to 20 s)",
                "the published schedule (no time for up to 120 s)",
            ],
        ),
    ],
)
def test_what_there_is_no_time_for_is_left_out_and_said(steps, limit, left_out):
    findings = steps.measure(limit)
    assert findings.left_out == left_out
    assert modes_in(findings) == ["exact", "fast"]
    assert findings.seconds <= limit
    assert "\n".join(f"- {what}" for what in left_out) in page(findings)


def test_a_published_schedule_that_does_not_fit_is_no_second_exact_row(steps):
    steps.failures = {"published": torch.cuda.OutOfMemoryError("Tried to allocate 90 GiB.")}
    findings = steps.measure(1000)
    assert modes_in(findings) == ["exact", "fast"]
    assert findings.left_out == ["the published schedule (out of memory)"]


def test_a_step_that_fails_loses_no_other(steps, capsys):
    steps.without = ("fast",)
    steps.failures = {"waits": RuntimeError("no such mode"), "kernels": RuntimeError("CUPTI_ERROR\nat line 3")}
    findings = steps.measure(1000)
    assert modes_in(findings) == ["exact", "published"]
    assert findings.left_out == [
        "the fast mode (out of memory)",
        "waits (RuntimeError: no such mode)",
        "kernels (RuntimeError: CUPTI_ERROR)",
    ]
    assert "at line 3" in capsys.readouterr().err


def test_a_profiler_that_sees_nothing_is_told(steps, monkeypatch):
    monkeypatch.setattr(page_module, "longest_kernels", lambda *_: [])
    assert steps.measure(1000).left_out == ["kernels (the profiler saw none)"]


def test_an_exact_mode_that_does_not_fit_leaves_a_page_and_fails(steps, tmp_path, capsys):
    steps.failures = {"ours": torch.cuda.OutOfMemoryError("Tried to allocate 90 GiB.")}
    assert main([*SMALL, "--json", str(tmp_path / "gpu.json")]) == 1
    left_out = ["the exact and the fast mode (out of memory)", "all that is measured beside the exact mode"]
    assert json.loads((tmp_path / "gpu.json").read_text())["left_out"] == left_out
    printed = capsys.readouterr().out
    assert printed.startswith("## CPU")
    assert f"- {left_out[0]}\n- {left_out[1]}\n" in printed


STOPPED = JUNIT.replace('failures="2"', 'failures="0"').replace('errors="1"', 'errors="0"')


@pytest.mark.parametrize(
    ("junit", "status", "expected"),
    [
        (JUNIT, 1, RanTests(34, 3, 3, 61.5)),
        (STOPPED, 0, RanTests(37, 0, 3, 61.5)),
        (STOPPED, 124, RanTests(37, 1, 3, 61.5, "stopped after 260 s")),
        (None, 137, RanTests(0, 1, ended="stopped after 260 s")),
        (STOPPED, 139, RanTests(37, 1, 3, 61.5, "ended with exit status 139")),
        (None, 139, RanTests(0, 1, ended="ended without a readable JUnit file")),
        ("<testsuites><testsu", 0, RanTests(0, 1, ended="ended without a readable JUnit file")),
        ("<testsuites/>", 5, RanTests(0, 1, ended="ended with exit status 5")),
    ],
)
def test_tests_that_did_not_run_to_their_end_have_failed(tmp_path, junit, status, expected):
    if junit is not None:
        (tmp_path / "tests.xml").write_text(junit)
    assert read_tests(tmp_path / "tests.xml", status, 260) == expected


def test_failed_tests_are_told_and_fail_the_command(steps, tmp_path, capsys):
    (tmp_path / "tests.xml").write_text(STOPPED)
    tests = ["--tests", str(tmp_path / "tests.xml"), "--tests-limit", "260"]
    assert main([*SMALL, *tests, "--tests-status", "124"]) == 1
    assert "37 passed, 1 failed, 3 skipped, 62 s, stopped after 260 s." in capsys.readouterr().out
    assert main([*SMALL, *tests, "--tests-status", "0"]) == 0


PYTHON = """#!/bin/sh
case "$*" in
  "-m pytest "*) test ! -e {folder}/gpu.json.xml || exit 9; {tests} ;;
  *) echo "$@" > {folder}/called ;;
esac
"""


@pytest.mark.skipif(not (shutil.which("make") and shutil.which("timeout")), reason="needs make and timeout")
@pytest.mark.parametrize(("tests", "status"), [("true", 0), ("exit 1", 1), ("sleep 30", 124)])
def test_make_gpu_tells_the_page_how_the_tests_ended(tests, status, tmp_path):
    """With a stand-in for Python, and a JUnit file of an earlier run, which the tests must not find."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(PYTHON.format(folder=tmp_path, tests=tests))
    (tmp_path / "bin" / "python").chmod(0o755)
    (tmp_path / ".installed").touch()
    (tmp_path / "gpu.json.xml").write_text(JUNIT)
    settings = [f"VENV={tmp_path}", f"GPU_JSON={tmp_path}/gpu.json", "GPU_SECONDS=3"]
    root = Path(__file__).parents[2]
    subprocess.run(["make", "-C", root, "gpu", *settings], check=True, capture_output=True, timeout=60)
    called = (tmp_path / "called").read_text()
    assert f"--tests {tmp_path}/gpu.json.xml --tests-status {status} --tests-limit 3 " in called


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


@pytest.mark.parametrize(("device", "recorded"), [("cpu", "CPU"), ("cuda", "CUDA")])
def test_on_a_gpu_the_host_is_not_profiled(device, recorded, monkeypatch):
    asked = []

    class Nothing:
        def __init__(self, activities):
            asked.extend(activity.name for activity in activities)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def key_averages(self):
            return []

    monkeypatch.setattr("zsvss.bench.profiling.profile", Nothing)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    assert longest_kernels(lambda: None, device) == []
    assert asked == [recorded]


def test_advice_is_what_saves_most():
    row = Row("exact", {"encode": 0.1, "modulation": 0.9}, [1.0], share_of_matrix_rate=0.1, peak_mib=2048)
    kernels = [Kernel("vectorized_elementwise_kernel", 9, 3.0, 0.6), Kernel("ampere_gemm", 5, 2.0, 0.4)]
    first, second, third = next_things(row, waits=1000, kernels=kernels, memory_gib=80.0, num_frames=10)
    assert first == (
        "modulation takes 90% of the time; the whole clip reaches 10% of the matrix rate and would take 2.00 s in "
        "place of 10.00 s at 50%."
    )
    assert "`vectorized_elementwise_kernel`" in second
    assert "60%" in second
    assert "2.0 GiB leaves most of 80 GiB free" in third
    slow = next_things(row, waits=1_000_000, kernels=kernels, memory_gib=None, num_frames=10)
    assert slow[0].startswith("The host waits 1000000 times")


def test_advice_is_three_things_whatever_was_measured():
    row = Row("exact", {**dict.fromkeys(STAGES, 0.1), "modulation": 0.4, "record": 0.3}, [1.1])
    things = next_things(row, waits=None, kernels=[], memory_gib=None, num_frames=1)
    assert [thing.split(" with ")[0].split(" takes ")[0] for thing in things] == [
        "modulation",
        "record is second",
        "encode is third",
    ]


def test_inductor_s_merged_kernels_are_no_products():
    row = row_of("exact")
    names = ["triton_poi_fused_convolution_silu_3", "triton_red_fused_mm_2", "triton_tem_fused_mm_5", "ampere_gemm"]
    kernels = [Kernel(name, 1, 1.0, 0.25) for name in names]
    (said,) = (text for text in next_things(row, None, kernels, None, 10) if "multiply no matrices" in text)
    assert said.startswith("50% of the kernels' time is in 2 of the longest")
    assert "first `triton_poi_fused_convolution" in said
