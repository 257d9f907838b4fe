"""What goes beyond the paper, component by component.

From the repository's root: `python -m experiments.enhanced.make`.

`choose` looks for settings on validation seeds and writes `settings.json`; `score` (the default) measures every
component alone and all together on held-out videos and on CamVid, and writes the tables into this folder's README.
Masked modulation is left out. Every clip's feature pass is shared by all rows, and videos that are in the results
file already are not computed again.

Shape legend: T frames of a clip, H W pixels.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count, islice, product
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from experiments.embedded_backbone.compare import OnePassAClip, build_backbones, clips_of, with_error
from zsvss.backbones.base import FeatureKey
from zsvss.backbones.embedded import Embedded
from zsvss.data.camvid import CamVid
from zsvss.data.datamodule import VideoDataModule
from zsvss.data.procedural import ProceduralVideos
from zsvss.data.scenes import TEST_SEEDS, Scene
from zsvss.metrics import FirstFrameNaming, VideoEvaluator, VideoResult
from zsvss.metrics.confusion import segmentation_scores
from zsvss.metrics.consistency import mean_consistency
from zsvss.module import clip_generator
from zsvss.results.atomic_files import fill_in
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.features import AttentionFeatures, ColorPositionFeatures, Features
from zsvss.stages.initialization import WardInitialization
from zsvss.stages.joint_features import BlockFeatures, JointFeatures, LabFeatures, PositionFeatures
from zsvss.stages.modulation import Modulation
from zsvss.stages.novelty import FIRST_UNNAMED_LABEL, Novelty
from zsvss.stages.refinement import CorrespondenceRefinement
from zsvss.stages.upsampling import GuidedUpsampling, SoftUpsampling

HERE = Path(__file__).parent
CLIP_LENGTH = 6
BLOCKS = (8, 5, 11)
BORDER = 2  # pixels on either side of a border between classes
FIRST_LATE = 100  # test video from which on those are looked for in which a class enters late
LATE_PIXELS = 100  # that a class must have in some frame to have entered


@dataclass(frozen=True)
class Settings:
    """What is chosen on validation seeds."""

    color: float = 0.5
    position: float = 0.5
    margin: float = 1.5


@dataclass(frozen=True)
class Row:
    """A system; ``features`` is queries (the paper's), blocks, color (queries, colour, position) or rgb."""

    name: str
    features: str = "queries"
    ward: bool = False
    num_neighbors: int = 4
    padding: int = 0
    upsampling: Callable[[], Modulation] | None = None
    novelty: bool = False
    network: str = "trained"
    settings: Settings = Settings()


guided = partial(GuidedUpsampling, eps=0.003)
ENHANCED = Row("enhanced: twelve neighbours, guided upsampling", num_neighbors=12, upsampling=guided)
ROWS = [
    Row("the paper's, without masked modulation"),
    Row("+ Ward", ward=True),
    Row("+ block outputs", "blocks"),
    Row("+ colour and position", "color"),
    Row("+ padding by 32 pixels", padding=32),
    Row("+ soft upsampling", upsampling=SoftUpsampling),
    Row("+ guided upsampling", upsampling=guided),
    Row("+ twelve neighbours", num_neighbors=12),
    Row("+ novelty", novelty=True),
    ENHANCED,
    replace(ENHANCED, name="enhanced + colour and position", features="color"),
    replace(ENHANCED, name="enhanced + Ward", ward=True),
    replace(ENHANCED, name="enhanced + padding", padding=32),
    replace(ENHANCED, name="enhanced + Ward, padding and novelty", ward=True, padding=32, novelty=True),
    Row("RGB+xy K-means", "rgb"),
    Row("RGB+xy Ward", "rgb", ward=True),
    Row("untrained U-Net", network="untrained"),
]


def build_features(kind: str, settings: Settings) -> Features:
    """Features of a row."""
    if kind == "blocks":
        return JointFeatures([BlockFeatures(block) for block in BLOCKS])
    if kind == "color":
        parts = [AttentionFeatures(), LabFeatures(), PositionFeatures()]
        return JointFeatures(parts, [1.0, settings.color, settings.position])
    return ColorPositionFeatures() if kind == "rgb" else AttentionFeatures()


def every_key(backbone: Embedded) -> list[FeatureKey]:
    """What any row reads of a feature pass."""
    return [key for block in BLOCKS for key in BlockFeatures(block).keys(backbone)]


def build_segmenter(row: Row, backbones: dict[str, OnePassAClip], size: tuple[int, int] | None) -> VideoSegmenter:
    """A row as a composition of stages; ``size`` is that of the backbone's input."""
    context = KNNSceneContext(
        num_neighbors=row.num_neighbors,
        initialization=WardInitialization() if row.ward else None,
        novelty=Novelty(row.settings.margin) if row.novelty else None,
    )
    rgb = row.features == "rgb"
    return VideoSegmenter(
        backbones["padded" if row.padding else row.network],  # type: ignore[arg-type]  # a stand-in
        context,
        None if rgb else CorrespondenceRefinement(),
        row.upsampling() if row.upsampling else None,
        features=build_features(row.features, row.settings),
        input_size=size,
        padding=row.padding,
    )


# Scores


class LateObjects:
    """Do new labels mean classes that were not there in the first clip?"""

    def __init__(self) -> None:
        self.early: set[int] = set()
        self.new_pixels: dict[int, dict[int, int]] = {}
        self.late_pixels: dict[int, int] = {}

    def update(self, labels_THW: Tensor, classes_THW: Tensor, is_first: bool) -> None:
        """Count a clip."""
        if is_first:
            self.early = {int(c) for c, area in zip(*classes_THW.unique(return_counts=True), strict=True) if area}
            return
        for number, area in zip(*classes_THW.unique(return_counts=True), strict=True):
            if int(number) >= 0 and int(number) not in self.early:
                self.late_pixels[int(number)] = self.late_pixels.get(int(number), 0) + int(area)
        for label in labels_THW.unique().tolist():
            if label >= FIRST_UNNAMED_LABEL:
                votes = self.new_pixels.setdefault(label, {})
                for number, area in zip(*classes_THW[labels_THW == label].unique(return_counts=True), strict=True):
                    votes[int(number)] = votes.get(int(number), 0) + int(area)

    def counts(self) -> dict[str, int]:
        """Late classes, how many of them a new label means, their pixels under one, new labels, false ones."""
        late = {number for number, area in self.late_pixels.items() if area >= LATE_PIXELS}
        meaning = {label: max(votes, key=lambda c: votes[c]) for label, votes in self.new_pixels.items()}
        return {
            "late": len(late),
            "found": len(late & set(meaning.values())),
            "late_pixels": sum(self.late_pixels[number] for number in late),
            "found_pixels": sum(votes.get(number, 0) for votes in self.new_pixels.values() for number in late),
            "new": len(meaning),
            "false": sum(number not in late for number in meaning.values()),
        }


def near_border(classes_THW: Tensor) -> Tensor:
    """Pixels within `BORDER` pixels of another class."""
    window = 2 * BORDER + 1
    maps = classes_THW[:, None].float()
    highest = functional.max_pool2d(maps, window, 1, BORDER)
    lowest = -functional.max_pool2d(-maps, window, 1, BORDER)
    return (highest != lowest)[:, 0]


def score_video(
    data: VideoDataModule, rows: Sequence[Row], size: tuple[int, int] | None = None
) -> list[dict[str, Any]]:
    """One record a row of the only video of ``data``."""
    (video,) = data.videos()
    taxonomy = data.taxonomy
    assert taxonomy is not None
    segmenters = [build_segmenter(row, shared_backbones(), size) for row in rows]
    evaluators = [VideoEvaluator(video.name, taxonomy, FirstFrameNaming()) for _ in rows]
    late = [LateObjects() for _ in rows]
    borders = [[0, 0] for _ in rows]
    seconds = [0.0] * len(rows)
    for clip in clips_of(data):
        for backbone in shared_backbones().values():
            backbone.remembered.clear()
        classes_THW = torch.stack([taxonomy.class_ids(labels_HW) for labels_HW in clip.labels_THW])
        final = slice(clip.num_final)
        scored_THW = classes_THW[final]
        border_THW = near_border(scored_THW) & (scored_THW >= 0)
        for i in range(len(rows)):
            start = time.process_time()
            labels_THW = segmenters[i](
                clip.frames_THW3,
                generator=clip_generator(0, data.name, clip.video, clip.index),
                first_labels_HW=classes_THW[0],
                num_wanted=clip.num_final,
            ).labels_THW
            seconds[i] += time.process_time() - start
            evaluators[i].update(labels_THW, clip.labels_THW[final], clip.labelled_T[final])
            late[i].update(labels_THW, scored_THW, clip.is_first)
            borders[i][0] += int((labels_THW == scored_THW)[border_THW].sum())
            borders[i][1] += int(border_THW.sum())
    return [
        {"row": row.name, **count.counts(), "border": border, **evaluator.finish(spent).to_dict()}
        for row, evaluator, count, border, spent in zip(rows, evaluators, late, borders, seconds, strict=True)
    ]


_BACKBONES: dict[str, OnePassAClip] = {}


def shared_backbones() -> dict[str, OnePassAClip]:
    """Trained, untrained, and trained once more for what sees padded frames; loaded once."""
    if not _BACKBONES:
        _BACKBONES.update(build_backbones(every_key))
        _BACKBONES["padded"] = OnePassAClip(_BACKBONES["trained"].backbone, every_key(_BACKBONES["trained"].backbone))
    return _BACKBONES


# Runs


def procedural(split: Literal["val", "test"], number: int, num_frames: int) -> ProceduralVideos:
    """One generated video."""
    return ProceduralVideos(
        split,
        num_videos=1,
        first_video=number,
        num_frames=num_frames,
        clip_length=CLIP_LENGTH,
        num_workers=0,
    )


def enters_late(number: int, num_frames: int) -> bool:
    """Whether a class of a test video is nowhere in its first clip and enters later."""
    scene = Scene(TEST_SEEDS[number], num_frames=num_frames, hard=TEST_SEEDS[number] % 2 == 1)
    labels = [torch.from_numpy(scene.render(index)[1].copy()) for index in range(num_frames)]
    early = set(torch.stack(labels[:CLIP_LENGTH]).unique().tolist())
    later = torch.stack(labels[CLIP_LENGTH:]).flatten()
    return any(area >= LATE_PIXELS and c not in early for c, area in enumerate(later.bincount().tolist()))


class Records:
    """Lines of the results file, one a video and row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def of(self, table: str, row: str) -> list[dict[str, Any]]:
        """Records of a row of a table."""
        return [line for line in self.lines if line["table"] == table and line["row"] == row]

    def compute(self, table: str, key: str, rows: Sequence[Row], score: Callable[[list[Row]], list[Any]]) -> bool:
        """Add what is missing of a video; tells whether anything was."""
        done = {line["row"] for line in self.lines if line["table"] == table and line["key"] == key}
        missing = [row for row in rows if row.name not in done]
        if missing:
            new = [{"table": table, "key": key, **record} for record in score(missing)]
            self.lines += new
            with self.path.open("a") as file:
                file.writelines(json.dumps(line) + "\n" for line in new)
            print(f"{table} {key}: {len(new)} rows", flush=True)
        return bool(missing)


def choose(args: argparse.Namespace) -> None:
    """Try feature weights and the margin of novelty on validation videos."""
    records = Records(args.results.with_name("enhanced_validation.jsonl"))
    with_colour = replace(ENHANCED, features="color")
    features = {
        settings: replace(with_colour, name=f"features {settings}", settings=settings)
        for settings in (Settings(*values) for values in product((0.25, 0.5, 1.0), (0.25, 0.5, 1.0)))
    }
    novelty = {
        settings: replace(ENHANCED, name=f"novelty {settings}", novelty=True, settings=settings)
        for settings in (Settings(margin=margin) for margin in (1.0, 1.5, 2.0, 3.0))
    }
    rows = [*features.values(), *novelty.values()]
    for number in range(args.validation_videos):
        data = procedural("val", number, args.frames)
        records.compute("validation", str(number), rows, partial(score_video, data))
    mious = {
        settings: mean(miou(record) for record in records.of("validation", row.name))
        for settings, row in features.items()
    }
    counts = {
        settings: {
            name: sum(record[name] for record in records.of("validation", row.name))
            for name in ("late", "found", "new", "false")
        }
        for settings, row in novelty.items()
    }
    margin = max(novelty, key=lambda settings: counts[settings]["found"] - counts[settings]["false"]).margin
    text = {
        "chosen": asdict(replace(max(features, key=lambda settings: mious[settings]), margin=margin)),
        "validation mIoU": {str(settings): value for settings, value in mious.items()},
        "validation novelty": {str(settings.margin): count for settings, count in counts.items()},
    }
    (HERE / "settings.json").write_text(json.dumps(text, indent=1) + "\n")
    print(json.dumps(text, indent=1))


def score(args: argparse.Namespace) -> None:
    """Compute what is missing, at most ``--limit`` videos, and write the tables."""
    settings = Settings(**json.loads((HERE / "settings.json").read_text())["chosen"])
    rows = [replace(row, settings=settings) for row in ROWS]
    records, left = Records(args.results), args.limit
    tasks: list[tuple[str, str, VideoDataModule, tuple[int, int] | None, list[Row]]] = []
    # Rows that share a feature pass are computed together, those without padding and with the trained network first.
    for shared in sorted({(row.network, row.padding) for row in rows}):
        of_pass = [row for row in rows if (row.network, row.padding) == shared]
        tasks += [("test", str(n), procedural("test", n, args.frames), None, of_pass) for n in range(args.videos)]
        if args.camvid:
            root, length = str(args.camvid), args.camvid_frames
            street = CamVid(root=root, limit_frames=length, clip_length=CLIP_LENGTH, num_workers=0)
            tasks.append(("camvid", "val", street, (256, 320), of_pass))
    novel = [row for row in rows if row.novelty]
    late = filter(lambda number: enters_late(number, args.frames), count(FIRST_LATE))
    late = islice(late, args.late_videos)
    tasks += [("late", str(n), procedural("test", n, args.frames), None, novel) for n in late]
    for table, key, data, size, wanted in tasks:
        if left > 0:
            left -= records.compute(table, key, wanted, partial(score_video, data, size=size))
    text = tables(records, args, settings)
    fill_in(HERE / "README.md", "enhanced", text)
    print(text)


# Tables


def miou(record: dict[str, Any]) -> float:
    """Mean IoU of a video."""
    return segmentation_scores(VideoResult.from_dict(record).confusion).miou


def vc8(record: dict[str, Any]) -> float:
    """Video consistency of a video."""
    return mean_consistency(VideoResult.from_dict(record).windows[8])


def border_accuracy(record: dict[str, Any]) -> float:
    """Share of the pixels near a border that are right."""
    right, every = record["border"]
    return right / every


def tables(records: Records, args: argparse.Namespace, settings: Settings) -> str:
    """All tables as Markdown."""
    first = {record["key"]: record for record in records.of("test", ROWS[0].name)}
    lines = [
        "| system | videos | mIoU | Δ mIoU | mIoU normal | mIoU hard | VC8 | border accuracy | Δ border | ms/frame "
        "| CamVid mIoU | CamVid VC8 | CamVid border |",
        "|---|" + "--:|" * 12,
    ]
    missing: list[str] = []
    for row in ROWS:
        by_video = {record["key"]: record for record in records.of("test", row.name)}
        if len(by_video) < 2:  # no standard error
            missing.append(row.name)
            continue
        every = list(by_video.values())
        camvid = records.of("camvid", row.name)

        def gain(score: Callable[[dict[str, Any]], float], by_video: dict[str, Any] = by_video) -> str:
            return with_error([score(record) - score(first[key]) for key, record in by_video.items()], signed=True)

        def kind(name: str, every: list[dict[str, Any]] = every) -> str:
            return with_error([miou(record) for record in every if name in record["name"]])

        frames = sum(record["num_frames"] for record in every)
        cells = [
            row.name,
            str(len(every)),
            with_error([miou(record) for record in every]),
            gain(miou) if row is not ROWS[0] else "",
            kind("normal"),
            kind("hard"),
            with_error([vc8(record) for record in every]),
            with_error([border_accuracy(record) for record in every]),
            gain(border_accuracy) if row is not ROWS[0] else "",
            f"{1000 * sum(record['seconds'] for record in every) / frames:.0f}",
            *(f"{100 * score(camvid[0]):.1f}" if camvid else "–" for score in (miou, vc8, border_accuracy)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    has_street = any(line["table"] == "camvid" for line in records.lines)
    street = f" and the first {args.camvid_frames} frames of CamVid val (seen at 256x320)" if has_street else ""
    parts = [
        f"{len(first)} videos of {args.frames} frames at 128x224 (test seeds, every other one hard; seen at 256x448)"
        f"{street}, clips of {CLIP_LENGTH}, K = 20, embedded backbone, "
        "no masked modulation, naming `first_frame` (uses the first frame's ground truth inside the method). "
        "Means of the videos' values ± standard errors, per cent; Δ is the paired difference to the first row, by "
        f"video. Border accuracy: pixels within {BORDER} of another class. ms/frame: processor time of one core; the "
        "first row of those that share a feature pass bears it.",
        "\n".join(lines) + (f"\n\nNot measured yet: {', '.join(missing)}." if missing else ""),
        late_table(records),
        f"Settings: {settings}.",
    ]
    if not has_street:
        parts.append("CamVid is not measured yet.")
    return "\n\n".join(parts)


def late_table(records: Records) -> str:
    """New labels against classes that enter late, over the videos in which a class does."""
    lines = [
        "| system | videos | late classes | found | recall | their pixels under new labels | new labels | false |",
        "|---|" + "--:|" * 7,
    ]
    for row in ROWS:
        every = [r for r in (*records.of("test", row.name), *records.of("late", row.name)) if r["late"]]
        if row.novelty and every:
            late, found, pixels, under, new, false = (
                sum(record[name] for record in every)
                for name in ("late", "found", "late_pixels", "found_pixels", "new", "false")
            )
            lines.append(
                f"| {row.name} | {len(every)} | {late} | {found} | {100 * found / late:.0f} % | "
                f"{100 * under / pixels:.0f} % | {new} | {false} |"
            )
    return (
        "Novelty on the videos in which a class enters that the first clip does not show. A late class is found if it "
        "is what most pixels of some new label show; a new label is false if most of its pixels are of a class that "
        "was there before.\n\n" + "\n".join(lines)
    )


def main() -> None:
    """Choose or score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("task", choices=("choose", "score"), nargs="?", default="score")
    parser.add_argument("--videos", type=int, default=20, help="test videos")
    parser.add_argument("--late-videos", type=int, default=8, help="more test videos, in which classes enter late")
    parser.add_argument("--validation-videos", type=int, default=4)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--camvid", type=Path, help="root of CamVid; without it, its columns stay empty")
    parser.add_argument("--camvid-frames", type=int, default=24)
    parser.add_argument("--results", type=Path, default=Path("runs/enhanced.jsonl"))
    parser.add_argument("--limit", type=int, default=1000, help="compute at most so many videos")
    args = parser.parse_args()
    choose(args) if args.task == "choose" else score(args)


if __name__ == "__main__":
    main()
