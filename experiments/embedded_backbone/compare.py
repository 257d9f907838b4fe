"""Compare the stages on held-out videos: `python experiments/embedded_backbone/compare.py`.

Every system labels the same procedural videos of the test seeds; the table goes into this folder's README. Videos that
are in the results file already are not computed again.

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
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from zsvss.backbones.base import Backbone, ClipNoise, Conditioning, FeatureKey, Recording
from zsvss.backbones.embedded import Embedded
from zsvss.data.clip import Clip
from zsvss.data.datamodule import VideoDataModule
from zsvss.data.loader import ClipLoader
from zsvss.data.procedural import PROCEDURAL, ProceduralVideos
from zsvss.metrics import FirstFrameNaming, HungarianNaming, VideoEvaluator, VideoResult, fold_results
from zsvss.metrics.confusion import segmentation_scores
from zsvss.metrics.consistency import mean_consistency
from zsvss.module import clip_generator
from zsvss.results.files import fill_in
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext, PerFrameClustering
from zsvss.stages.features import AttentionFeatures, ColorPositionFeatures, Features
from zsvss.stages.modulation import MaskedModulation
from zsvss.stages.refinement import CorrespondenceRefinement

HERE = Path(__file__).parent
NAMINGS = {"first_frame": FirstFrameNaming, "hungarian": HungarianNaming}


@dataclass(frozen=True)
class System:
    """One row of the table; `before` is the row that its gain is measured against."""

    name: str
    network: str
    features: type[Features]
    context: bool
    refinement: bool = False
    modulation: bool = False
    before: str | None = None


SYSTEMS = [
    System("RGB+xy K-means, per frame", "trained", ColorPositionFeatures, context=False),
    System("RGB+xy K-means + scene context", "trained", ColorPositionFeatures, context=True),
    System("untrained U-Net, per frame", "untrained", AttentionFeatures, context=False),
    System("untrained U-Net + scene context", "untrained", AttentionFeatures, context=True),
    System("trained U-Net, per frame", "trained", AttentionFeatures, context=False),
    System("+ scene context", "trained", AttentionFeatures, context=True, before="trained U-Net, per frame"),
    System("+ refinement", "trained", AttentionFeatures, context=True, refinement=True, before="+ scene context"),
    System(
        "+ masked modulation",
        "trained",
        AttentionFeatures,
        True,
        refinement=True,
        modulation=True,
        before="+ refinement",
    ),
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


def build_segmenter(system: System, backbones: dict[str, OnePassAClip]) -> VideoSegmenter:
    """The system as a composition of stages."""
    return VideoSegmenter(
        backbones[system.network],  # type: ignore[arg-type]
        KNNSceneContext() if system.context else PerFrameClustering(),
        CorrespondenceRefinement() if system.refinement else None,
        MaskedModulation() if system.modulation else None,
        features=system.features(),
    )


def score_video(number: int, rows: Sequence[tuple[System, str]], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Records of one video for pairs of system and naming protocol."""
    torch.set_num_threads(args.threads)
    data = ProceduralVideos(num_videos=1, first_video=number, num_frames=args.frames, num_workers=0)
    (video,) = data.videos()
    backbones = build_backbones()
    segmenters = [build_segmenter(system, backbones) for system, _ in rows]
    evaluators = [VideoEvaluator(video.name, PROCEDURAL, NAMINGS[naming]()) for _, naming in rows]
    seconds = [0.0] * len(rows)
    for clip in clips_of(data):
        for backbone in backbones.values():
            backbone.remembered.clear()
        classes_HW = PROCEDURAL.class_ids(clip.labels_THW[0])
        for i, (_, naming) in enumerate(rows):
            start = time.process_time()
            labels_THW = segmenters[i](
                clip.frames_THW3,
                generator=clip_generator(0, data.name, clip.video, clip.index),
                first_labels_HW=classes_HW if naming == "first_frame" else None,
                num_wanted=clip.num_final,
            ).labels_THW
            seconds[i] += time.process_time() - start
            final = slice(clip.num_final)
            evaluators[i].update(labels_THW, clip.labels_THW[final], clip.labelled_T[final])
    return [
        {"system": system.name, "naming": naming, "video": number, **evaluator.finish(spent).to_dict()}
        for (system, naming), evaluator, spent in zip(rows, evaluators, seconds, strict=True)
    ]


def clips_of(data: VideoDataModule) -> Iterator[Clip]:
    """All clips, rendered in this process."""
    return iter(ClipLoader(data.plan(data.videos()), num_workers=0))


def compute(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All records, computing those that the results file lacks."""
    weights = Embedded().fingerprint()
    lines = args.results.read_text().splitlines() if args.results.exists() else []
    records = [record for line in lines if (record := json.loads(line))["weights"] == weights]
    done = {(record["system"], record["naming"], record["video"]) for record in records}
    plain, slow = [], []
    for number in range(args.videos):
        missing = [(s, naming) for naming in NAMINGS for s in SYSTEMS if (s.name, naming, number) not in done]
        plain.append((number, [(system, naming) for system, naming in missing if not system.modulation]))
        # Masked modulation takes far longer than the rest, which is therefore computed before it.
        limit = dict(zip(NAMINGS, args.modulated, strict=True))
        slow += [(number, [row]) for row in missing if row[0].modulation and number < limit[row[1]]]
    args.results.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.processes, mp_context=context) as pool, args.results.open("a") as results:
        running = [pool.submit(score_video, number, rows, args) for number, rows in plain + slow if rows]
        for finished in as_completed(running):
            for record in finished.result():
                record["weights"] = weights
                records.append(record)
                results.write(json.dumps(record) + "\n")
            results.flush()
    return records


# Table


def of_system(records: Sequence[dict[str, Any]], system: str, naming: str, kind: str = "") -> dict[int, VideoResult]:
    """Results by video number; `kind` is a part of the video's name (normal, hard)."""
    return {
        record["video"]: VideoResult.from_dict(record)
        for record in records
        if record["system"] == system and record["naming"] == naming and kind in record["name"]
    }


def with_error(values: Sequence[float], *, signed: bool = False) -> str:
    """Mean and standard error in points."""
    values = [100 * value for value in values if not math.isnan(value)]
    if not values:
        return "–"
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else math.nan
    return f"{mean(values):{'+' if signed else ''}.1f} ± {error:.1f}"


def row(records: Sequence[dict[str, Any]], system: System, naming: str) -> str:
    """One row of the table."""
    results = of_system(records, system.name, naming)
    if not results:
        return ""
    numbers = fold_results(results.values())
    kinds = [of_system(records, system.name, naming, kind).values() for kind in ("normal", "hard")]
    miou = {video: segmentation_scores(result.confusion).miou for video, result in results.items()}
    gains = ["", ""]
    if system.before:
        earlier = of_system(records, system.before, naming)
        gains = [
            with_error([miou[v] - segmentation_scores(earlier[v].confusion).miou for v in results], signed=True),
            with_error(
                [mean_consistency(results[v].windows[8]) - mean_consistency(earlier[v].windows[8]) for v in results],
                signed=True,
            ),
        ]
    cells = [
        system.name,
        str(len(results)),
        *(f"{100 * numbers[f'test/{name}']:.1f}" for name in ("mIoU", "VC8", "VC16")),
        *(f"{100 * fold_results(kind)['test/mIoU']:.1f}" if kind else "–" for kind in kinds),
        with_error(list(miou.values())),
        *gains,
    ]
    return "| " + " | ".join(cells) + " |"


HEADER = (
    "| system | videos | mIoU | VC8 | VC16 | mIoU normal | mIoU hard | mean of videos' mIoU ± SE "
    "| Δ mIoU ± SE | Δ VC8 ± SE |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def tables(records: Sequence[dict[str, Any]], args: argparse.Namespace) -> str:
    """Both tables as Markdown."""
    parts = [
        f"{args.videos} videos of {args.frames} frames at 128x224 (test seeds; every other one `hard`), token grid "
        f"16x28, K = 20, percent. Δ is the paired difference to the row above, by video; a row over fewer "
        f"videos compares by it alone. Networks in float32 on "
        f"{platform.machine()}. Command: `python experiments/embedded_backbone/compare.py`."
    ]
    for naming in NAMINGS:
        rows = [line for system in SYSTEMS if (line := row(records, system, naming))]
        parts += [f"Naming protocol `{naming}`: {NAMINGS[naming]().note}.", "\n".join([HEADER, *rows])]
    return "\n\n".join(parts)


def main() -> None:
    """Compute what is missing and write the tables into the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--frames", type=int, default=42)
    parser.add_argument(
        "--modulated", type=int, nargs=2, default=(20, 20), help="videos with masked modulation, for each protocol"
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
