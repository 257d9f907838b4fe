"""The precision of a run, where what was asked for does not suit the machine."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from zsvss.commands import device
from zsvss.commands.device import choose_precision, has_bfloat16

SMALL = SimpleNamespace(class_path="zsvss.backbones.embedded.Embedded")
LARGE = SimpleNamespace(class_path="zsvss.backbones.flux.Flux")


def asked(accelerator: str, precision: str) -> SimpleNamespace:
    return SimpleNamespace(accelerator=accelerator, precision=precision)


@pytest.mark.parametrize(
    ("accelerator", "has_gpu", "precision", "chosen"),
    [
        ("cpu", True, "16-true", "32-true"),
        ("auto", False, "16-true", "32-true"),
        ("auto", False, "16-mixed", "32-true"),
        ("auto", True, "16-true", "16-true"),
    ],
)
@pytest.mark.parametrize("backbone", [SMALL, LARGE])
def test_a_cpu_computes_in_float32_where_a_gpu_would_in_float16(
    monkeypatch: pytest.MonkeyPatch,
    accelerator: str,
    has_gpu: bool,
    precision: str,
    chosen: str,
    backbone: SimpleNamespace,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    trainer = asked(accelerator, precision)
    note = choose_precision(trainer, backbone)
    assert trainer.precision == chosen
    told = f"trainer.precision {precision} is many times slower than float32 on a CPU; computing in 32-true"
    assert note == ((logging.WARNING, told) if chosen != precision else None)


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "bf16"])
@pytest.mark.parametrize("has_instructions", [False, True])
@pytest.mark.parametrize(("has_gpu", "name"), [(False, "processor"), (True, "GPU")])
def test_the_small_model_computes_in_float32_where_bfloat16_has_no_instructions(
    monkeypatch: pytest.MonkeyPatch, precision: str, has_instructions: bool, has_gpu: bool, name: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(device, "has_bfloat16", lambda *, on_cpu: has_instructions and on_cpu != has_gpu)
    trainer = asked("auto", precision)
    note = choose_precision(trainer, SMALL)
    assert trainer.precision == (precision if has_instructions else "32-true")
    told = f"trainer.precision {precision}: this {name} has no instructions for it, as far as PyTorch tells; "
    assert note == (None if has_instructions else (logging.INFO, told + "computing in 32-true"))


def test_large_models_keep_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "has_bfloat16", lambda *, on_cpu: False)
    trainer = asked("cpu", "bf16-true")
    assert choose_precision(trainer, LARGE) is None
    assert trainer.precision == "bf16-true"


@pytest.mark.parametrize(
    ("capabilities", "has_them"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx2": True, "avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": True}, True),
        ({"neon": True, "bf16": True}, False),  # not measured
    ],
)
def test_which_processors_have_instructions(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], has_them: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_bfloat16(on_cpu=True) == has_them


def test_older_pytorch_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not has_bfloat16(on_cpu=True)


def test_a_gpu_that_only_emulates_them_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not has_bfloat16(on_cpu=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert has_bfloat16(on_cpu=False)


@pytest.mark.parametrize("has_instructions", [False, True])
def test_the_log_of_a_run_tells(tmp_path: Path, has_instructions: bool) -> None:
    """`predict` as it is without settings, on a processor of either kind; in a process of its own."""
    root = Path(__file__).parents[2]
    code = (
        "import sys; from zsvss.commands import device, lightning; "
        f"device.has_bfloat16 = lambda *, on_cpu: {has_instructions}; sys.exit(lightning.main(sys.argv[1:]))"
    )
    words = ["predict", "--config", root / "configs" / "predict_embedded.yaml", "--data.input", root / "docs" / "swan"]
    options = ["--data.limit_frames", "2", "--predictions.video", "false", "--output", tmp_path / "run"]
    subprocess.run([sys.executable, "-c", code, *words, *options], cwd=tmp_path, check=True)
    told = "has no instructions for it, as far as PyTorch tells; computing in 32-true"
    assert (told in (tmp_path / "run" / "log.txt").read_text()) == (not has_instructions)
    chosen = "bf16-true" if has_instructions else "32-true"
    assert f"precision: {chosen}\n" in (tmp_path / "run" / "config.yaml").read_text()
