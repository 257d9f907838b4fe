"""What the features are worth for propagating given labels: DAVIS with the first frame's mask given.

From the repository's root: `python -m experiments.propagation.make --root data/davis`.

Every row has the same propagation (`GivenLabels`), the same upsampling and the same grid; only the features differ. One
feature pass a clip is shared by all rows. `choose` looks for the propagation's settings, one at a time, with all
features together on `CHOSEN_ON`, and writes `settings.json`. `score` (the default) measures all rows on all videos and
fills the table of this folder's README. Both go on where they were interrupted.

Shape legend: T frames of a clip, H W pixels, n tokens, c channels.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from zsvss.backbones.base import Recording
from zsvss.backbones.embedded import Embedded
from zsvss.data.clip import Clip
from zsvss.data.davis import DAVIS_2016, Davis
from zsvss.data.loader import ClipLoader
from zsvss.metrics import FirstFrameNaming, GivenFirstFrameNaming, VideoEvaluator, VideoResult
from zsvss.metrics.naming import ClusterNaming
from zsvss.metrics.objects import object_scores
from zsvss.module import clip_generator
from zsvss.results.atomic_files import fill_in, write_atomically
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext, SceneContext
from zsvss.stages.features import AttentionFeatures, ColorPositionFeatures, Features
from zsvss.stages.given_labels import GivenLabels
from zsvss.stages.joint_features import JointFeatures, LabFeatures, LatentFeatures, PositionFeatures
from zsvss.stages.upsampling import GuidedUpsampling

HERE = Path(__file__).parent
CHOSEN_ON = ("bmx-trees", "car-roundabout", "goat", "kite-surf")
POSITION = 0.5
ALL = "all together"
PREDICT = "U-Net features, Lab and position (0.25)"
CLUSTERS = "all together, clusters named by the first frame"
# Tried one after another, each from the best of what was tried before.
TRIED: dict[str, Sequence[Any]] = {
    "reach": (0.06, 0.1, 0.15, 0.25),
    "num_frames": (7, 14, 20, 28),
    "subcells": (1, 2, 3),
    "temperature": (0.02, 0.05, 0.1, 0.2),
    "num_neighbors": (5, 10, 20),
}


def all_rows() -> dict[str, Features]:
    """Features of each row; all lie on the grid of output blocks 6..8."""
    unet, latents, lab, position = AttentionFeatures(), LatentFeatures(), LabFeatures(), PositionFeatures()
    together = JointFeatures([unet, latents, lab, position], [1, 1, 1, POSITION])
    return {
        "colour and position": ColorPositionFeatures(),
        "Lab and position": JointFeatures([lab, position], [1, POSITION]),
        "autoencoder's latents and position": LatentFeatures(POSITION),
        "U-Net features and position": JointFeatures([unet, position], [1, POSITION]),
        PREDICT: JointFeatures([unet, lab, position], [1, 1, 0.25]),
        "all but U-Net features": JointFeatures([latents, lab, position], [1, 1, POSITION]),
        ALL: together,
        CLUSTERS: together,
    }


class SharedPass:
    """A backbone that remembers the feature pass of the clip that it saw last, with all that any row reads.

    Args:
        backbone: that does the work.
    """

    def __init__(self, backbone: Embedded) -> None:
        self.backbone = backbone
        self.keys = {key for features in all_rows().values() for key in features.keys(backbone)}
        self.latents: Tensor | None = None
        self.recording: Recording | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backbone, name)

    def forget(self) -> None:
        """The next clip is another one."""
        self.latents = self.recording = None

    def encode(self, *arguments: Any) -> Tensor:
        """Latents of the clip, encoded once."""
        self.latents = self.backbone.encode(*arguments) if self.latents is None else self.latents
        return self.latents

    def record(self, noised_Tchw: Tensor, conditioning: Any, _keys: Any, **options: Any) -> Recording:
        """Recording of the clip, made once."""
        if self.recording is None:
            self.recording = self.backbone.record(noised_Tchw, conditioning, self.keys, **options)
        return self.recording


class Run:
    """A row on one video.

    Args:
        backbone: shared with the other rows.
        row: its name.
        settings: of the propagation.
        input_size: at which the backbone sees the frames.
    """

    def __init__(self, backbone: SharedPass, row: str, settings: dict[str, Any], input_size: tuple[int, int]) -> None:
        self.is_given = row != CLUSTERS
        context: SceneContext = GivenLabels(**settings) if self.is_given else KNNSceneContext()
        self.naming: ClusterNaming = GivenFirstFrameNaming() if self.is_given else FirstFrameNaming()
        stages: Any = (backbone, context, None, GuidedUpsampling())
        self.segmenter = VideoSegmenter(*stages, features=all_rows()[row], input_size=input_size)
        self.evaluator: VideoEvaluator | None = None
        self.seconds = 0.0

    def add(self, clip: Clip) -> None:
        """Segment and score a clip; the video's first one is given its first frame's mask."""
        assert clip.labels_THW is not None
        if self.evaluator is None:
            self.evaluator = VideoEvaluator(clip.video, DAVIS_2016, self.naming)
        first = {}
        if clip.is_first:
            truth_THW = DAVIS_2016.class_ids(clip.labels_THW)
            first = {"first_labels_HW": truth_THW[0]}
            if self.is_given:
                truth_THW[1:] = -1
                first = {"given_THW": truth_THW}
        start = time.process_time()
        generator = clip_generator(0, "davis-2016", clip.video, clip.index)
        segmented = self.segmenter(
            clip.frames_THW3, resized_THW3=clip.resized_THW3, generator=generator, num_wanted=clip.num_final, **first
        )
        self.seconds += time.process_time() - start
        final = slice(clip.num_final)
        self.evaluator.update(segmented.labels_THW, clip.labels_THW[final], clip.labelled_T[final])

    def finish(self) -> VideoResult:
        """The video's result."""
        assert self.evaluator is not None
        return self.evaluator.finish(self.seconds)


def build_backbone() -> SharedPass:
    """The backbone that ships with the package, in one step without guidance as `fast.yaml` has it."""
    backbone = Embedded(num_steps=100, first_step=99)
    backbone.load()
    return SharedPass(backbone.eval())


def clips(args: argparse.Namespace, backbone: SharedPass, names: Sequence[str]) -> Iterator[Clip]:
    """All clips of some videos; before each one, the backbone forgets the last."""
    data = Davis(
        args.root, year=2016, split=args.split, names=list(names), tail="short", limit_frames=args.frames, num_workers=0
    )
    size = VideoSegmenter(backbone, input_size=args.input_size).network_size  # type: ignore[arg-type]  # a stand-in
    for clip in ClipLoader(data.plan(data.videos()), num_workers=0, network_size=size):
        backbone.forget()
        yield clip


def listed(args: argparse.Namespace) -> list[str]:
    """Names of all videos, in their order."""
    return [video.name for video in Davis(args.root, year=2016, split=args.split).videos()]


def choose(args: argparse.Namespace) -> None:
    """Look for the propagation's settings and write them, with everything that was tried."""
    path = HERE / "settings.json"
    backbone = build_backbone()
    weights = backbone.fingerprint()
    kept = json.loads(path.read_text()) if path.exists() else {}
    same = {"weights": weights, "frames": args.frames, "input_size": args.input_size}
    tried: list[dict[str, Any]] = kept.get("tried", []) if same.items() <= kept.items() else []
    best: dict[str, Any] = {}
    for name, values in TRIED.items():
        wanted = [{**best, name: value} for value in values]
        missing = [settings for settings in wanted if settings not in [one["settings"] for one in tried]]
        runs: dict[tuple[int, str], Run] = {}
        for clip in clips(args, backbone, CHOSEN_ON) if missing else ():
            for number, settings in enumerate(missing):
                if (number, clip.video) not in runs:
                    runs[number, clip.video] = Run(backbone, ALL, settings, args.input_size)
                runs[number, clip.video].add(clip)
        for number, settings in enumerate(missing):
            scores = {video: j_of(run.finish()) for (of, video), run in runs.items() if of == number}
            tried.append({"settings": settings, "J": round(mean(scores.values()), 4), "videos": scores})
            print(settings, scores)
        best = max((one for one in tried if one["settings"] in wanted), key=lambda one: one["J"])["settings"]
        write_atomically(path, json.dumps({**same, "chosen": best, "tried": tried}, indent=1) + "\n")


def j_of(result: VideoResult) -> float:
    """J of a video, 0..1."""
    return object_scores(result.objects.values(), result.object_protocol)["J"]


def score(args: argparse.Namespace) -> None:
    """Measure all rows on all videos and write the tables."""
    backbone = build_backbone()
    path = HERE / "settings.json"
    settings = json.loads(path.read_text())["chosen"] if path.exists() else {}
    basis = {"weights": backbone.fingerprint(), "settings": settings, "input_size": list(args.input_size)}
    basis |= {"frames": args.frames}
    lines = args.results.read_text().splitlines() if args.results.exists() else []
    records = [record for line in lines if basis.items() <= (record := json.loads(line)).items()]
    args.results.parent.mkdir(parents=True, exist_ok=True)
    names = listed(args)
    for video in names:
        missing = [
            row for row in args.only or all_rows() if not any(r["row"] == row and r["video"] == video for r in records)
        ]
        if not missing:
            continue
        runs = {row: Run(backbone, row, settings, args.input_size) for row in missing}
        for clip in clips(args, backbone, [video]):
            for run in runs.values():
                run.add(clip)
        for row, run in runs.items():
            record = {**basis, "row": row, "video": video, "result": run.finish().to_dict()}
            records.append(record)
            with args.results.open("a") as file:
                file.write(json.dumps(record) + "\n")
        print(video, {row: round(100 * j_of(of_row(records, row, [video])[0]), 1) for row in runs})
    fill_in(HERE / "README.md", "{}x{}".format(*args.input_size), tables(records, names, args))


def of_row(records: Sequence[dict[str, Any]], row: str, videos: Sequence[str]) -> list[VideoResult]:
    """Results of a row on some videos."""
    return [VideoResult.from_dict(r["result"]) for r in records if r["row"] == row and r["video"] in videos]


def tables(records: Sequence[dict[str, Any]], names: Sequence[str], args: argparse.Namespace) -> str:
    """Scores over the videos and J of each."""
    others = [name for name in names if name not in CHOSEN_ON]
    groups = {f"the {len(others)} others": others, f"all {len(names)}": list(names)}
    columns = [f"{score}, {group}" for group in groups for score in ("J", "F")]
    lines = [
        f"{len(names)} videos" + (f", their first {args.frames} frames" if args.frames else "") + f", seen at "
        f"{args.input_size[0]}x{args.input_size[1]}; naming `given_first_frame` (rows with clusters: `first_frame`); J "
        f"and F `semi_supervised`, per cent. Settings were chosen on {', '.join(CHOSEN_ON)}.",
        "",
        f"| features | {' | '.join(columns)} | J decay, all | {' | '.join(names)} |",
        f"|---|{'--:|' * (len(columns) + 1 + len(names))}",
    ]
    for row in all_rows():
        if len(of_row(records, row, names)) < len(names):
            continue
        cells = []
        for videos in groups.values():
            scores = scores_of(of_row(records, row, videos))
            cells += [scores["J"], scores["F"]]
        cells.append(scores_of(of_row(records, row, names))["J_decay"])
        cells += [scores_of(of_row(records, row, [name]))["J"] for name in names]
        lines.append(f"| {row} | {' | '.join(f'{100 * cell:.1f}' for cell in cells)} |")
    return "\n".join(lines)


def scores_of(results: Sequence[VideoResult]) -> dict[str, float]:
    """J and F over the objects of some videos."""
    return object_scores([frames for result in results for frames in result.objects.values()], "semi_supervised")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=("choose", "score"), default="score")
    parser.add_argument("--root", type=Path, default=Path("data/davis"), help="folder of DAVIS")
    parser.add_argument("--split", default="all", help="of DAVIS 2016 (default: every video of the folder)")
    parser.add_argument("--frames", type=int, help="use only so many frames of each video")
    parser.add_argument("--input-size", type=int, nargs=2, default=(512, 896), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--only", nargs="+", choices=list(all_rows()), help="compute these rows alone")
    parser.add_argument("--results", type=Path, default=Path("runs/propagation.jsonl"))
    args = parser.parse_args()
    args.input_size = tuple(args.input_size)
    torch.set_grad_enabled(False)
    {"choose": choose, "score": score}[args.task](args)


if __name__ == "__main__":
    main()
