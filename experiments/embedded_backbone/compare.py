"""Compare the stages on held-out videos: `python experiments/embedded_backbone/compare.py --camvid data/camvid`.

Every system labels the same procedural videos of the test seeds, and CamVid val where it is given, there with several
seeds of noise and K-means; the tables go into this folder's README. What is in the results file already is not computed
again.

Shape legend: T frames of a clip, H W pixels.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from zsvss.backbones.base import Backbone, ClipNoise, Conditioning, FeatureKey, Recording
from zsvss.backbones.embedded import Embedded
from zsvss.data.camvid import CamVid
from zsvss.data.clip import Clip
from zsvss.data.datamodule import VideoDataModule
from zsvss.data.loader import ClipLoader
from zsvss.data.procedural import PROCEDURAL, ProceduralVideos
from zsvss.data.taxonomy import Taxonomy
from zsvss.metrics import FirstFrameNaming, VideoEvaluator, VideoResult, fold_results
from zsvss.metrics.confusion import segmentation_scores
from zsvss.metrics.consistency import mean_consistency
from zsvss.module import clip_generator
from zsvss.results.atomic_files import fill_in
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.features import AttentionFeatures, ColorPositionFeatures, Features
from zsvss.stages.joint_features import LatentFeatures
from zsvss.stages.modulation import MaskedModulation, Modulation
from zsvss.stages.per_frame import PerFrameClustering
from zsvss.stages.refinement import CorrespondenceRefinement
from zsvss.stages.upsampling import GuidedUpsampling

HERE = Path(__file__).parent
GENERATED, CAMVID = "generated", "CamVid val"


@dataclass(frozen=True)
class System:
    """One row of the table; `before` is the row that its gain is measured against."""

    name: str
    network: str
    features: Callable[[], Features]
    context: bool
    refinement: bool = False
    modulation: Callable[[], Modulation] | None = None
    before: str | None = None
    num_neighbors: int = 4

    @property
    def is_slow(self) -> bool:
        """Whether it runs masked modulation, which takes far longer than the rest."""
        return self.modulation is MaskedModulation


COLOUR, LATENTS, UNTRAINED, TRAINED = "colour and position", "bare latents", "untrained U-Net", "trained U-Net"
CONTEXT = " + scene context"
BASELINE = COLOUR + CONTEXT
THREE_STAGES = f"{COLOUR}, all three stages"
WITH_POSITION = "bare latents and position" + CONTEXT
latents_and_position = partial(LatentFeatures, position_weight=0.5)
enhanced_upsampling = partial(GuidedUpsampling, eps=0.003)
SYSTEMS = [
    System(f"{COLOUR}, per frame", "trained", ColorPositionFeatures, context=False),
    System(BASELINE, "trained", ColorPositionFeatures, context=True),
    System(f"{COLOUR}, refined", "trained", ColorPositionFeatures, context=True, refinement=True, before=BASELINE),
    System(f"{LATENTS}, per frame", "trained", LatentFeatures, context=False),
    System(LATENTS + CONTEXT, "trained", LatentFeatures, context=True, before=BASELINE),
    System(WITH_POSITION, "trained", latents_and_position, context=True, before=BASELINE),
    System(f"{UNTRAINED}, per frame", "untrained", AttentionFeatures, context=False),
    System(UNTRAINED + CONTEXT, "untrained", AttentionFeatures, context=True, before=BASELINE),
    System(f"{TRAINED}, per frame", "trained", AttentionFeatures, context=False),
    System(TRAINED + CONTEXT, "trained", AttentionFeatures, context=True, before=BASELINE),
    System("... + refinement", "trained", AttentionFeatures, True, refinement=True, before=BASELINE),
    System("... + masked modulation", "trained", AttentionFeatures, True, True, MaskedModulation, before=BASELINE),
    System("enhanced", "trained", AttentionFeatures, True, True, enhanced_upsampling, BASELINE, num_neighbors=12),
    System(THREE_STAGES, "trained", ColorPositionFeatures, True, True, MaskedModulation, before=BASELINE),
]


class OnePassAClip:
    """A backbone whose feature pass is shared by all systems: the last clip's latents and recording are remembered.

    Args:
        backbone: that does the work.
        keys: what any of the systems asks for; beside it, what the paper's stages do.
    """

    def __init__(self, backbone: Backbone, keys: Collection[FeatureKey] = ()) -> None:
        self.backbone = backbone
        paper = (AttentionFeatures(), CorrespondenceRefinement().features)
        self.keys = {*keys, *(key for features in paper for key in features.keys(backbone))}
        self.remembered: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backbone, name)

    def encode(self, images_T3HW: Tensor, noise: ClipNoise) -> Tensor:
        """Latents of the clip, encoded once."""
        if "latents" not in self.remembered:
            self.remembered["latents"] = self.backbone.encode(images_T3HW, noise)
        return self.remembered["latents"]

    def record(
        self, noised_Tchw: Tensor, conditioning: Conditioning, keys: Sequence[FeatureKey], **_options: bool
    ) -> Recording:
        """Recording of the clip, made once with all features that any system asks for."""
        if "recording" not in self.remembered:
            self.remembered["recording"] = self.backbone.record(noised_Tchw, conditioning, {*keys, *self.keys})
        return self.remembered["recording"]


def build_backbones(keys: Callable[[Embedded], Collection[FeatureKey]] = lambda _: ()) -> dict[str, OnePassAClip]:
    """The embedded backbone, and the same with a U-Net as it was before training; ``keys`` as in `OnePassAClip`."""
    trained, untrained = Embedded(), Embedded()
    trained.load()
    untrained.load()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        untrained.unet = UNet2DConditionModel.from_config(untrained.unet.config).eval().requires_grad_(False)
    return {name: OnePassAClip(b.eval(), keys(b)) for name, b in (("trained", trained), ("untrained", untrained))}


def build_segmenter(
    system: System, backbones: dict[str, OnePassAClip], input_size: tuple[int, int] | None = None
) -> VideoSegmenter:
    """The system as a composition of stages."""
    return VideoSegmenter(
        backbones[system.network],  # type: ignore[arg-type]  # a stand-in
        KNNSceneContext(num_neighbors=system.num_neighbors) if system.context else PerFrameClustering(),
        CorrespondenceRefinement() if system.refinement else None,
        system.modulation() if system.modulation else None,
        features=system.features(),
        input_size=input_size,
    )


def source_of(dataset: str, number: int, args: argparse.Namespace) -> tuple[VideoDataModule, Taxonomy]:
    """One video and what its labels mean."""
    if dataset == GENERATED:
        generated = ProceduralVideos(num_videos=1, first_video=number, num_frames=args.frames, num_workers=0)
        return generated, PROCEDURAL
    camvid = CamVid(root=str(args.camvid), split="val", labels="11", num_workers=0)
    return camvid, camvid.taxonomy


def score_video(dataset: str, number: int, systems: Sequence[System], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Records of one video, one a system; CamVid val is one video, of which ``number`` is the seed."""
    torch.set_num_threads(args.threads)
    data, taxonomy = source_of(dataset, number, args)
    (video,) = data.videos()
    backbones = build_backbones()
    size = size_of(dataset, args)
    segmenters = [build_segmenter(system, backbones, size) for system in systems]
    evaluators = [VideoEvaluator(video.name, taxonomy, FirstFrameNaming()) for _ in systems]
    seconds = [0.0] * len(systems)
    for clip in clips_of(data):
        for backbone in backbones.values():
            backbone.remembered.clear()
        for i, segmenter in enumerate(segmenters):
            start = time.process_time()
            labels_THW = segmenter(
                clip.frames_THW3,
                generator=clip_generator(number if dataset == CAMVID else 0, data.name, clip.video, clip.index),
                first_labels_HW=taxonomy.class_ids(clip.labels_THW[0]),
                num_wanted=clip.num_final,
            ).labels_THW
            seconds[i] += time.process_time() - start
            final = slice(clip.num_final)
            evaluators[i].update(labels_THW, clip.labels_THW[final], clip.labelled_T[final])
    return [
        {"system": system.name, "dataset": dataset, "video": number, "size": size, **evaluator.finish(spent).to_dict()}
        for system, evaluator, spent in zip(systems, evaluators, seconds, strict=True)
    ]


def size_of(dataset: str, args: argparse.Namespace) -> tuple[int, int] | None:
    """Height and width at which the backbone sees a data set's frames; ``None`` is its own size."""
    return (args.camvid_size[0], args.camvid_size[1]) if dataset == CAMVID else None


def clips_of(data: VideoDataModule) -> Iterator[Clip]:
    """All clips, rendered in this process."""
    return iter(ClipLoader(data.plan(data.videos()), num_workers=0))


def compute(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All records, computing those that the results file lacks."""
    weights = Embedded().fingerprint()
    lines = args.results.read_text().splitlines() if args.results.exists() else []
    records = [
        record
        for line in lines
        if (record := json.loads(line))["weights"] == weights
        and tuple(record.get("size") or ()) == (size_of(record["dataset"], args) or ())
    ]
    done = {(record["system"], record["dataset"], record["video"]) for record in records}
    videos = [(CAMVID, seed) for seed in range(args.seeds if args.camvid else 0)]
    videos += [(GENERATED, number) for number in range(args.videos)]
    plain, slow = [], []
    for dataset, number in videos:
        wanted = [system for system in SYSTEMS if system.name in (args.only or (system.name,))]
        missing = [system for system in wanted if (system.name, dataset, number) not in done]
        plain.append((dataset, number, [system for system in missing if not system.is_slow]))
        # Masked modulation comes after the rest.
        if number < (args.modulated_seeds if dataset == CAMVID else args.modulated):
            slow += [(dataset, number, [system]) for system in missing if system.is_slow]
    args.results.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.processes, mp_context=context) as pool, args.results.open("a") as results:
        running = [pool.submit(score_video, *video, args) for video in plain + slow if video[2]]
        for finished in as_completed(running):
            for record in finished.result():
                record["weights"] = weights
                records.append(record)
                results.write(json.dumps(record) + "\n")
            results.flush()
    return records


# Table


def of_system(records: Sequence[dict[str, Any]], system: str, dataset: str, kind: str = "") -> dict[int, VideoResult]:
    """Results by video number; `kind` is a part of the video's name (normal, hard)."""
    return {
        record["video"]: VideoResult.from_dict(record)
        for record in records
        if record["system"] == system and record["dataset"] == dataset and kind in record["name"]
    }


def with_error(values: Sequence[float], *, signed: bool = False) -> str:
    """Mean and standard error in points."""
    values = [100 * value for value in values if not math.isnan(value)]
    if not values:
        return "–"
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else math.nan
    return f"{mean(values):{'+' if signed else ''}.1f} ± {error:.1f}"


def gains(results: dict[int, VideoResult], earlier: dict[int, VideoResult]) -> list[str]:
    """Paired differences in mIoU and VC8, by video."""
    shared = sorted(set(results) & set(earlier))
    pairs = [(results[video], earlier[video]) for video in shared]
    scores = (lambda result: segmentation_scores(result.confusion).miou, lambda r: mean_consistency(r.windows[8]))
    return [with_error([score(one) - score(other) for one, other in pairs], signed=True) for score in scores]


def generated_row(records: Sequence[dict[str, Any]], system: System) -> str:
    """One row of the generated videos' table."""
    results = of_system(records, system.name, GENERATED)
    if not results:
        return ""
    numbers = fold_results(results.values())
    cells = [system.name, str(len(results)), *(f"{100 * numbers[f'test/{name}']:.1f}" for name in ("mIoU", "VC8"))]
    for kind in ("normal", "hard"):
        videos = of_system(records, system.name, GENERATED, kind)
        cells.append(with_error([segmentation_scores(result.confusion).miou for result in videos.values()]))
    for kind in ("", "hard"):
        videos = of_system(records, system.name, GENERATED, kind)
        gain = gains(videos, of_system(records, system.before, GENERATED, kind)) if system.before else ["", ""]
        cells += gain if not kind else gain[:1]
    return "| " + " | ".join(cells) + " |"


def camvid_row(records: Sequence[dict[str, Any]], system: System) -> str:
    """One row of CamVid's table: a single video, whose errors are those of seeds."""
    results = of_system(records, system.name, CAMVID)
    if not results:
        return ""
    every = [fold_results([result]) for result in results.values()]
    cells = [with_error([numbers[f"test/{name}"] for numbers in every]) for name in ("mIoU", "VC8", "VC16")]
    cells += gains(results, of_system(records, system.before, CAMVID)) if system.before else ["", ""]
    return f"| {system.name} | {len(results)} | {' | '.join(cells)} |"


HEADER = (
    "| system | videos | mIoU | VC8 | normal: mIoU ± SE | hard: mIoU ± SE | Δ mIoU ± SE | Δ VC8 ± SE "
    "| hard: Δ mIoU ± SE |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|"
)
CAMVID_HEADER = "| system | seeds | mIoU | VC8 | VC16 | Δ mIoU | Δ VC8 |\n|---|--:|--:|--:|--:|--:|--:|"


def tables(records: Sequence[dict[str, Any]], args: argparse.Namespace) -> str:
    """Both tables as Markdown."""
    rows = [line for system in SYSTEMS if (line := generated_row(records, system))]
    camvid = [line for system in SYSTEMS if (line := camvid_row(records, system))]
    height, width = args.camvid_size
    parts = [
        "Per cent; K = 20; clusters named by the first frame's ground truth, inside the method. Networks in float32 on "
        f"{platform.machine()}.",
        f"Generated videos: {args.videos} of {args.frames} frames at 128x224 (test seeds; every other one `hard`), "
        "seen at 256x448, token grid 16x28. mIoU and VC8 are of all videos together, the others means over videos. "
        f"Δ is the paired difference to {BASELINE}.",
        "\n".join([HEADER, *rows]),
        f"CamVid val, 101 frames of one video, seen at {height}x{width}; means over seeds of "
        "noise and K-means ± standard errors, which say nothing about other videos.",
        "\n".join([CAMVID_HEADER, *camvid]),
    ]
    return "\n\n".join(parts if camvid else parts[:3])


def main() -> None:
    """Compute what is missing and write the tables into the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--frames", type=int, default=42)
    parser.add_argument("--modulated", type=int, default=20, help="generated videos with masked modulation")
    parser.add_argument("--modulated-seeds", type=int, default=1, help="seeds of CamVid with masked modulation")
    parser.add_argument("--seeds", type=int, default=5, help="of CamVid")
    parser.add_argument("--only", nargs="+", choices=[system.name for system in SYSTEMS], help="compute these alone")
    parser.add_argument("--camvid", type=Path, help="root of CamVid")
    parser.add_argument(
        "--camvid-size", nargs=2, type=int, default=(384, 512), help="height and width, as in camvid_embedded.yaml"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--results", type=Path, default=Path("runs/embedded_backbone.jsonl"))
    args = parser.parse_args()
    text = tables(compute(args), args)
    fill_in(HERE / "README.md", "comparison", text)
    print(text)


if __name__ == "__main__":
    main()
