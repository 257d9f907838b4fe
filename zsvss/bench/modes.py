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
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console

from zsvss.backbones.embedded import Embedded
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.bench.meters import agreement, count, matrix_rate
from zsvss.bench.published import PublishedSchedule
from zsvss.bench.rows import STAGES, Case, Row, table
from zsvss.bench.stand_ins import RandomWeights, SparseLabels
from zsvss.commands.allocator import keep_freed_memory
from zsvss.commands.config import find_config
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
        size = options.size or ((128, 224) if is_small else (448, 832) if on_gpu else (256, 448))
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


def compare(case: Case, device: str, dtype: torch.dtype, wanted: Sequence[str] | None = None) -> list[Row]:
    """Run all modes in turn, again and again, after one run of each that counts arithmetic and memory.

    A mode that a GPU's memory is too small for is left out, with a line on standard error.

    Args:
        case: what to compare on.
        device: where to run.
        dtype: of the networks.
        wanted: modes beside the exact one; ``None`` takes all.
    """
    modes = modes_of(case, device, dtype)
    if wanted is not None:
        modes = {name: mode for name, mode in modes.items() if name == "exact" or name in wanted}
    return measured(modes, case, device, dtype)


def measured(
    modes: Mapping[str, Callable[[], SegmentedClip]], case: Case, device: str, dtype: torch.dtype
) -> list[Row]:
    """Run modes, the exact one among them, as :func:`compare` does."""
    rows: dict[str, Row] = {}
    results: dict[str, SegmentedClip] = {}
    for name, mode in modes.items():
        try:
            counted = count(mode, device)
        except torch.cuda.OutOfMemoryError as error:
            if name == "exact":
                raise  # what the others are compared with
            print(f"{name} is left out of {case}: {str(error).splitlines()[0]}", file=sys.stderr)
            torch.cuda.empty_cache()
            continue
        tflop = counted.flop / case.num_frames / 1e12
        rows[name] = Row(name, tflop_per_frame=tflop, peak_mib=counted.peak / 2**20)
        results[name] = counted.result
    for name, row in rows.items():
        row.agreement = agreement(results[name].labels_THW, results["exact"].labels_THW)
        row.labels_per_frame = statistics.mean(len(labels_hw.unique()) for labels_hw in results["exact"].refined_Thw)
    _time(rows, modes, case, device, dtype)
    return list(rows.values())


def modes_of(case: Case, device: str, dtype: torch.dtype) -> dict[str, Callable[[], SegmentedClip]]:
    """What each mode runs, on the same frames."""
    scene = Scene(scene_split("test")[0], num_frames=case.num_frames, height=case.size[0], width=case.size[1])
    frames_THW3 = torch.from_numpy(np.stack([scene.render(number)[0] for number in range(case.num_frames)]))
    thin = SparseLabels(CorrespondenceRefinement(), case.num_labels, case.present)
    random = RandomWeights(_SD21)

    def network(**settings: Any) -> StableDiffusion:
        backbone: StableDiffusion = Embedded(**{"guidance": 5.0, **settings})  # as the published schedule has it
        if case.network == "sd21":
            backbone = StableDiffusion(random.name, **settings)
            backbone.source = random
        backbone.load()
        return backbone.to(device, dtype)  # buffers are cast too, as by Lightning's precisions

    def segmented(backbone: StableDiffusion, modulation: Modulation) -> Callable[[], SegmentedClip]:
        segmenter = VideoSegmenter(backbone, KNNSceneContext(case.num_labels), thin, modulation)

        def run() -> SegmentedClip:
            segmenter.reset()
            result: SegmentedClip = segmenter(frames_THW3)
            return result

        return run

    fast_settings, fast_modulation = fast_mode()
    shared = network()
    modes = {
        "exact": segmented(shared, MaskedModulation()),
        "fast, modulated": segmented(shared, MaskedModulation(guided=False, num_steps=1)),
        "fast": segmented(network(**fast_settings), fast_modulation),
    }
    if not case.published_repeats:
        print(f"the published schedule is left out: too slow for L = {case.num_labels}", file=sys.stderr)
        return modes
    plain = network(reuse_recorded=False, max_batch=2 * case.num_frames)
    noise = plain.sample_noise(case.num_frames, *case.size, torch.Generator().manual_seed(0))
    labels_Thw = modes["exact"]().refined_Thw
    label_set_L = torch.arange(case.num_labels, device=device)

    def run(folder: Path | None = None) -> SegmentedClip:
        return PublishedSchedule(plain, case.num_labels, thin, folder)(frames_THW3, noise, labels_Thw, label_set_L)

    def run_through_disk() -> SegmentedClip:
        with tempfile.TemporaryDirectory(prefix="zsvss-bench-") as folder:
            return run(Path(folder))

    return {"published": run, "published, through disk": run_through_disk, **modes}


def _time(
    rows: dict[str, Row], modes: Mapping[str, Callable[[], SegmentedClip]], case: Case, device: str, dtype: torch.dtype
) -> None:
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
            row.processor_seconds.append((time.process_time() - start) / case.num_frames)
            stages[name].append(seconds)
            row.all_seconds.append(sum(seconds.values()) / case.num_frames)
    for name, row in rows.items():
        for stage, parts in STAGES.items():
            sums = [sum(seconds.get(part, 0.0) for part in parts) for seconds in stages[name]]
            row.seconds[stage] = statistics.median(sums) / case.num_frames
        per_frame = row.seconds_per_frame if device != "cpu" else statistics.median(row.processor_seconds)
        row.share_of_matrix_rate = row.tflop_per_frame * 1e12 / per_frame / statistics.median(rates)


def fast_mode() -> tuple[dict[str, Any], Modulation]:
    """Settings of the backbone and the third stage of ``configs/fast.yaml``."""
    model = yaml.safe_load(find_config("fast.yaml").read_text())["model"]
    chosen = model["modulation"]
    modulation: Modulation = getattr(upsampling, chosen["class_path"])(**chosen["init_args"])
    return model["backbone"], modulation
