"""Corrected frames against naming alone, on DAVIS: what the studio's "propagate" gains from one frame, and from three.

The annotator is the ground truth: it names clusters by the majority of the first frame, or hands over the masks of the
first frame, or of three: the first, and those at one third and two thirds of the video. Everything else is what the
studio does, by its own code.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from zsvss.commands.config_files import find_config
from zsvss.commands.studio import EMBEDDED, segmenter_of
from zsvss.data.davis import DAVIS_2016, Davis
from zsvss.data.video import FileVideo
from zsvss.metrics import FirstFrameNaming
from zsvss.metrics.objects import FrameCounts, frame_counts, object_scores
from zsvss.results.atomic_files import fill_in
from zsvss.results.predictions import Source
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.studio.frames import Frames
from zsvss.studio.model import CLIP, Model, clip_of
from zsvss.studio.session import digest_of

HERE = Path(__file__).parent
Masks = npt.NDArray[np.int32]
NAMING = "clusters, named by the first frame"


def shares_of(number: int) -> list[float]:
    """Where the corrected frames lie, as shares of the video."""
    return [index / number for index in range(number)]


class Video:
    """A sequence with its masks.

    Args:
        video: of the data set.
        num_frames: to use; all if None.
    """

    def __init__(self, video: FileVideo, num_frames: int | None) -> None:
        assert not isinstance(video.frames, Path)
        self.name = video.name
        files = video.frames[:num_frames]
        opened = video.open()
        _, raw_THW, _ = opened.read(0, len(files))
        opened.close()
        assert raw_THW is not None
        self.truth_THW = DAVIS_2016.class_ids(raw_THW).numpy().astype(np.int32)
        self.frames = Frames(Source(str(files[0].parent), tuple(file.name for file in files)))

    def __len__(self) -> int:
        return len(self.truth_THW)


def propagated(model: Model, video: Video, given: Sequence[int]) -> Iterator[tuple[int, Masks]]:
    """Masks of all frames that are not given, each propagated from the given frame before it, as the studio does."""
    for index, start in enumerate(given):
        end = given[index + 1] if index + 1 < len(given) else len(video)
        order = sorted(given, key=lambda frame: (frame == start, -abs(frame - start)))
        masks = {frame: video.truth_THW[frame] for frame in order}
        yield from model.propagate(video.frames, len(video), masks, range(start + 1, end))


def named(model: Model, video: Video) -> Iterator[tuple[int, Masks]]:
    """Masks of all frames by clusters that the first frame has named, from the same features, upsampled alike."""
    ready = model.ready()
    looking = ready.segmenter
    stages: Any = (looking.backbone, KNNSceneContext(), None, ready.upsampling)
    segmenter = VideoSegmenter(
        *stages, features=looking.features, input_size=looking.input_size, padding=looking.padding,
        min_region=ready.min_region,
    )  # fmt: skip
    first_HW = FirstFrameNaming().first_labels(torch.from_numpy(video.truth_THW[0]).long(), DAVIS_2016.num_classes)
    for start in range(0, len(video), CLIP):
        numbers = range(start, min(start + CLIP, len(video)))
        labels_THW = segmenter(
            clip_of(video.frames, numbers), generator=torch.Generator().manual_seed(start), first_labels_HW=first_HW
        ).labels_THW
        yield from zip(numbers, labels_THW.numpy().astype(np.int32), strict=True)


def score(video: Video, masks: Iterator[tuple[int, Masks]], scored: Sequence[int]) -> dict[str, float]:
    """J and F of the object over some frames."""
    found = dict(masks)
    counts: list[FrameCounts] = [
        frame_counts(torch.from_numpy(found[frame] == 1), torch.from_numpy(video.truth_THW[frame] == 1))
        for frame in scored
    ]
    scores = object_scores([counts], "all_frames")
    return {"J": scores["J"], "F": scores["F"]}


def rows(model: Model, video: Video) -> dict[str, Callable[[], Iterator[tuple[int, Masks]]]]:
    """What is compared."""
    thirds = [round(share * len(video)) for share in shares_of(3)]
    return {
        NAMING: lambda: named(model, video),
        "one corrected frame": lambda: propagated(model, video, [0]),
        "three corrected frames": lambda: propagated(model, video, thirds),
    }


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows on all videos; what was measured before is kept."""
    model = Model(segmenter_of(Path.cwd(), EMBEDDED))
    weights = model.ready().segmenter.backbone.fingerprint()
    config = digest_of(find_config(EMBEDDED))
    basis = {"weights": weights, "config": config, "frames": args.frames}
    lines = args.results.read_text().splitlines() if args.results.exists() else []
    records = [record for line in lines if basis.items() <= (record := json.loads(line)).items()]
    args.results.parent.mkdir(parents=True, exist_ok=True)
    for found in Davis(args.root, year="2016", split=args.split).videos():
        assert isinstance(found, FileVideo)
        if any(record["video"] == found.name for record in records):
            continue
        video = Video(found, args.frames)
        # Frames that any row was given count in none.
        thirds = {round(share * len(video)) for share in shares_of(3)}
        scored = [frame for frame in range(len(video)) if frame not in thirds]
        for row, make in rows(model, video).items():
            start = time.process_time()
            scores = score(video, make(), scored)
            seconds = (time.process_time() - start) / len(video)
            records.append({**basis, "video": video.name, "row": row, **scores, "seconds": seconds})
            with args.results.open("a") as file:
                file.write(json.dumps(records[-1]) + "\n")
            print(video.name, row, {name: round(100 * value, 1) for name, value in scores.items()}, flush=True)
        video.frames.close()
    return records


def table(records: Sequence[dict[str, Any]], args: argparse.Namespace) -> str:
    """J of each video, J and F of all."""
    names = list(dict.fromkeys(record["video"] for record in records))
    which = f"the first {args.frames} frames of " if args.frames else ""
    lines = [
        f"{len(names)} videos, {which}each; J and F in per cent, over the frames that no row was given;",
        "the embedded backbone by `configs/predict_masks_embedded.yaml`.",
        "",
        f"| given | J | F | {' | '.join(names)} |",
        f"|---|{'--:|' * (2 + len(names))}",
    ]
    for row in dict.fromkeys(record["row"] for record in records):
        of_row = {record["video"]: record for record in records if record["row"] == row}
        cells = [mean(record[score] for record in of_row.values()) for score in ("J", "F")]
        cells += [of_row[name]["J"] for name in names]
        lines.append(f"| {row} | {' | '.join(f'{100 * cell:.1f}' for cell in cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data/davis"), help="folder of DAVIS")
    parser.add_argument("--split", default="all", help="of DAVIS 2016 (default: every video of the folder)")
    parser.add_argument("--frames", type=int, help="use only so many frames of each video")
    parser.add_argument("--results", type=Path, default=Path("runs/corrections.jsonl"))
    args = parser.parse_args()
    fill_in(HERE / "README.md", "corrections", table(measure(args), args))


if __name__ == "__main__":
    main()
