"""``zsvss.run bench``: the exact and the fast mode beside the published schedule, on the same frames and weights.

All modes run in turn in one process. Frames are generated; the network is the embedded one or Stable Diffusion 2.1's
architecture with random weights, because speed does not depend on the weights.

Shape legend: T frames of a clip, H W pixels, n tokens, h w token cells, L labels.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from rich.console import Console
from torch import Tensor

from zsvss.backbones.embedded import Embedded
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.bench.meters import Counted, agreement, count, matrix_rate
from zsvss.bench.mode_table import STAGES, Case, Row, table
from zsvss.bench.published import PublishedSchedule
from zsvss.bench.stand_ins import RandomWeights, SparseLabels
from zsvss.commands.allocator import keep_freed_memory
from zsvss.commands.config_files import find_config
from zsvss.data.scenes import Scene, scene_split
from zsvss.results.fingerprint import code_version
from zsvss.segmenter import VideoSegmenter
from zsvss.stages import upsampling
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.modulation import MaskedModulation, Modulation
from zsvss.stages.refinement import CorrespondenceRefinement
from zsvss.stages.trace import SegmentedClip

_SD21 = Path(__file__).parent / "sd21"
_PRESENT = (1.0, 0.6)
Mode = Callable[[], SegmentedClip]


def run(options: argparse.Namespace) -> int:
    """Compare the modes and print the tables; returns the exit code."""
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device != "cpu"
    dtype = options.dtype or ("bfloat16" if on_gpu else "float32")
    if not on_gpu:
        keep_freed_memory()  # as runs do
        torch.set_num_threads(1)
    record: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} thread",
        "dtype": dtype,
        "code": code_version(),
        "torch": torch.__version__,
        "cases": [],
    }
    print(f"{record['device']}, {dtype}", flush=True)
    try:
        for case in _cases(options, on_gpu=on_gpu):
            rows = compare(case, device, getattr(torch, dtype), options.modes)
            Console(width=200).print(table(case, rows))
            record["cases"].append(asdict(case) | {"rows": [asdict(row) for row in rows]})
            if options.json:
                options.json.write_text(json.dumps(record, indent=2) + "\n")
    except (ValueError, OSError, torch.cuda.OutOfMemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _cases(options: argparse.Namespace, *, on_gpu: bool) -> list[Case]:
    """What to compare; what was not asked for depends on the device."""
    networks = [options.network] if options.network else ["embedded", "sd21"] if on_gpu else ["embedded"]
    cases = []
    for network in networks:
        is_small = network == "embedded"
        size = options.size or ((448, 832) if on_gpu and not is_small else (256, 448))
        num_frames = options.frames or (14 if on_gpu else 2)
        for num_labels in options.labels or ([10] if is_small else [5, 10, 20] if on_gpu else [2]):
            # With random weights every label is everywhere unless some are taken away: one share will do.
            shares = options.present or (_PRESENT if is_small else [1.0])
            # So many labels cost the published schedule 3 to 6 PFLOP a clip of Stable Diffusion: once has to do.
            repeats = options.repeats or (5 if is_small or not on_gpu else 3)
            is_asked = any(name.startswith("published") for name in options.modes or ())
            published_repeats = repeats if is_small or not on_gpu else int(is_asked or num_labels == 10)
            cases += [
                Case(network, (size[0], size[1]), num_frames, num_labels, share, repeats, published_repeats)
                for share in shares
            ]
    return cases


class Measured(NamedTuple):
    """What was measured of modes, and the exact one's labels, which others are compared with."""

    rows: list[Row]
    exact: SegmentedClip


def compare(case: Case, device: str, dtype: torch.dtype, wanted: Sequence[str] | None = None) -> list[Row]:
    """Run all modes in turn, again and again, after one run of each that counts arithmetic and memory.

    A mode that a GPU's memory is too small for is left out, with a line on standard error.

    Args:
        case: what to compare on.
        device: where to run.
        dtype: of the networks.
        wanted: modes beside the exact one; ``None`` takes all.
    """
    modes = Modes(case, device, dtype)
    chosen = modes.ours()
    if wanted is None or any(name.startswith("published") for name in wanted):
        if case.published_repeats:
            chosen = modes.published(chosen["exact"]().refined_Thw) | chosen
        else:
            print(f"the published schedule is left out: too slow for L = {case.num_labels}", file=sys.stderr)
    if wanted is not None:
        chosen = {name: mode for name, mode in chosen.items() if name == "exact" or name in wanted}
    return measured(chosen, case, device, dtype).rows


def measured(modes: Mapping[str, Mode], case: Case, device: str, dtype: torch.dtype) -> Measured:
    """Run modes, the exact one among them, as :func:`compare` does."""
    counted: dict[str, Counted[SegmentedClip]] = {}
    for name, mode in modes.items():
        try:
            found = count(mode, device)
        except torch.cuda.OutOfMemoryError as error:
            if name == "exact":
                raise  # what the others are compared with
            print(f"{name} is left out of {case}: {str(error).splitlines()[0]}", file=sys.stderr)
            torch.cuda.empty_cache()
            continue
        counted[name] = found
    exact = counted["exact"].result
    rows = {name: _row(name, found, exact, case) for name, found in counted.items()}
    _time(rows, modes, case, device, dtype)
    return Measured(list(rows.values()), exact)


def measured_once(name: str, mode: Mode, exact: SegmentedClip, case: Case, device: str, dtype: torch.dtype) -> Row:
    """Run a mode that takes long a single time, which is both counted and timed.

    Counting costs the host some microseconds an operation.

    Raises:
        OutOfMemoryError: PyTorch's own.
    """
    start = time.process_time()
    counted = count(mode, device)
    processor_seconds = time.process_time() - start
    row = _row(name, counted, exact, case)
    _add_run(row, counted.result.seconds, processor_seconds, case)
    _conclude(row, [counted.result.seconds], matrix_rate(device, dtype), case, device)
    return row


class Modes:
    """What each mode runs, on the same frames.

    Args:
        case: what to run on.
        device: where to run.
        dtype: of the networks.
    """

    def __init__(self, case: Case, device: str, dtype: torch.dtype) -> None:
        scene = Scene(scene_split("test")[0], num_frames=case.num_frames, height=case.size[0], width=case.size[1])
        self._frames_THW3 = torch.from_numpy(np.stack([scene.render(number)[0] for number in range(case.num_frames)]))
        self._refinement = SparseLabels(CorrespondenceRefinement(), case.num_labels, case.present)
        self._weights = RandomWeights(_SD21)
        self._case, self._device, self._dtype = case, device, dtype

    def ours(self) -> dict[str, Mode]:
        """Those of the method."""
        fast_settings, fast_modulation = fast_mode()
        shared = self._network()
        return {
            "exact": self._segmented(shared, MaskedModulation()),
            "fast, modulated": self._segmented(shared, MaskedModulation(guided=False, num_steps=1)),
            "fast": self._segmented(self._network(**fast_settings), fast_modulation),
        }

    def published(self, labels_Thw: Tensor) -> dict[str, Mode]:
        """The published schedule, in memory and through disk; its third stage gets these token labels."""
        case = self._case
        plain = self._network(reuse_recorded=False, max_batch=2 * case.num_frames)
        noise = plain.sample_noise(case.num_frames, *case.size, torch.Generator().manual_seed(0))
        label_set_L = torch.arange(case.num_labels, device=self._device)

        def run(folder: Path | None = None) -> SegmentedClip:
            schedule = PublishedSchedule(plain, case.num_labels, self._refinement, folder)
            return schedule(self._frames_THW3, noise, labels_Thw, label_set_L)

        def run_through_disk() -> SegmentedClip:
            with tempfile.TemporaryDirectory(prefix="zsvss-bench-") as folder:
                return run(Path(folder))

        return {"published": run, "published, through disk": run_through_disk}

    def _network(self, **settings: Any) -> StableDiffusion:
        backbone: StableDiffusion = Embedded(**{"guidance": 5.0, **settings})  # as the published schedule has it
        if self._case.network == "sd21":
            backbone = StableDiffusion(self._weights.name, **settings)
            backbone.source = self._weights
        backbone.load()
        return backbone.to(self._device, self._dtype)  # buffers are cast too, as by Lightning's precisions

    def _segmented(self, backbone: StableDiffusion, modulation: Modulation) -> Mode:
        context = KNNSceneContext(self._case.num_labels)
        segmenter = VideoSegmenter(backbone, context, self._refinement, modulation, input_size="frames")

        def run() -> SegmentedClip:
            segmenter.reset()
            result: SegmentedClip = segmenter(self._frames_THW3)
            return result

        return run


def _row(name: str, counted: Counted[SegmentedClip], exact: SegmentedClip, case: Case) -> Row:
    """What one run has counted of a mode."""
    return Row(
        name,
        tflop_per_frame=counted.flop / case.num_frames / 1e12,
        peak_mib=counted.peak / 2**20,
        agreement=agreement(counted.result.labels_THW, exact.labels_THW),
        labels_per_frame=statistics.mean(len(labels_hw.unique()) for labels_hw in exact.refined_Thw),
    )


def _time(rows: Mapping[str, Row], modes: Mapping[str, Mode], case: Case, device: str, dtype: torch.dtype) -> None:
    """Fill in the rows' seconds, and what follows from them."""
    stages: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
    rates = []
    for repeat in range(case.repeats):
        rates.append(matrix_rate(device, dtype))
        for name, row in rows.items():
            if name.startswith("published") and repeat >= case.published_repeats:
                continue
            start = time.process_time()
            seconds = modes[name]().seconds
            _add_run(row, seconds, time.process_time() - start, case)
            stages[name].append(seconds)
    for name, row in rows.items():
        _conclude(row, stages[name], statistics.median(rates), case, device)


def _add_run(row: Row, seconds: Mapping[str, float], processor_seconds: float, case: Case) -> None:
    row.processor_seconds.append(processor_seconds / case.num_frames)
    row.all_seconds.append(sum(seconds.values()) / case.num_frames)


def _conclude(row: Row, stages: Sequence[Mapping[str, float]], rate: float, case: Case, device: str) -> None:
    """Fill in what follows from a row's runs and the matrix rate."""
    for stage, parts in STAGES.items():
        sums = [sum(seconds.get(part, 0.0) for part in parts) for seconds in stages]
        row.seconds[stage] = statistics.median(sums) / case.num_frames
    per_frame = row.seconds_per_frame if device != "cpu" else statistics.median(row.processor_seconds)
    row.share_of_matrix_rate = row.tflop_per_frame * 1e12 / per_frame / rate


def fast_mode() -> tuple[dict[str, Any], Modulation]:
    """Settings of the backbone and the third stage of ``configs/fast.yaml``."""
    model = yaml.safe_load(find_config("fast.yaml").read_text())["model"]
    chosen = model["modulation"]
    modulation: Modulation = getattr(upsampling, chosen["class_path"])(**chosen["init_args"])
    return model["backbone"], modulation
