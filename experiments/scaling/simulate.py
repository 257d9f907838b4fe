"""How long VSPW's 343 val videos take on 1..64 processes, from a real cost per frame and the real sharding.

Usage::

    python experiments/scaling/simulate.py --seconds-per-frame 1.0 --modulation-share 0.8
    python experiments/scaling/simulate.py --root data/vspw ...     # the real lengths
    python experiments/scaling/simulate.py --videos-csv runs/RUN/videos.csv ...     # costs of a finished run

Without ``--root`` the lengths are drawn: 343 videos of 71 frames on average, which is VSPW's mean (251,633 frames in
3,536 videos); their range and spread are a guess.
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

import numpy as np
import torch

from zsvss.data.clip import clip_starts
from zsvss.data.datamodule import shard_videos
from zsvss.data.video import OpenVideo, Video
from zsvss.data.vspw import VSPW

RANKS = (1, 2, 4, 8, 16, 32, 64)
NUM_VIDEOS, MEAN_FRAMES, SHORTEST, LONGEST = 343, 71, 21, 195


class Length(Video):
    """A video of which only the length matters."""

    path, has_ground_truth = "", False

    def open(self) -> OpenVideo:
        """Refuse: only the length is known."""
        raise TypeError("a video of which only the length is known cannot be opened")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="VSPW, for the real lengths")
    parser.add_argument("--videos-csv", type=Path, help="of a finished run, for real seconds per frame with spread")
    parser.add_argument("--seconds-per-frame", type=float, default=1.0)
    parser.add_argument("--modulation-share", type=float, default=0.8, help="of the cost; not paid twice for a frame")
    parser.add_argument("--startup", type=float, default=30.0, help="seconds until a process computes")
    parser.add_argument("--clip-length", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    videos = VSPW(options.root).videos() if options.root else drawn_lengths(options.seed)
    costs = frame_costs(options.videos_csv, options.seconds_per_frame, len(videos), options.seed)
    share = options.modulation_share
    seconds = {
        video.name: cost
        * (share * video.num_frames + (1 - share) * computed_frames(video.num_frames, options.clip_length))
        for video, cost in zip(videos, costs, strict=True)
    }
    total = sum(seconds.values())
    print(
        f"{len(videos)} videos, {sum(video.num_frames for video in videos)} frames, {total / 3600:.2f} h on one process"
    )
    print("| processes | makespan | ideal | above ideal | above ideal if dealt in turn | speed-up |")
    print("|---:|---:|---:|---:|---:|---:|")
    for num_ranks in RANKS:
        # Nothing ends before the longest video does, however many processes there are.
        ideal = max(total / num_ranks, max(seconds.values()))
        longest_first = makespan(shard_videos(videos, num_ranks), seconds)
        in_order = makespan([list(videos[rank::num_ranks]) for rank in range(num_ranks)], seconds)
        speed_up = (total + options.startup) / (longest_first + options.startup)
        print(
            f"| {num_ranks} | {longest_first:,.0f} s | {ideal:,.0f} s | {longest_first / ideal - 1:.1%} "
            f"| {in_order / ideal - 1:.1%} | {speed_up:.1f} |"
        )


def drawn_lengths(seed: int) -> list[Video]:
    """Lengths with VSPW's mean and range."""
    rng = np.random.default_rng(seed)
    # A beta distribution over the range with the right mean; its spread is a guess.
    mean = (MEAN_FRAMES - SHORTEST) / (LONGEST - SHORTEST)
    lengths = SHORTEST + rng.beta(4 * mean, 4 * (1 - mean), NUM_VIDEOS) * (LONGEST - SHORTEST)
    return [Length(f"{number:03d}", round(length)) for number, length in enumerate(lengths)]


def frame_costs(videos_csv: Path | None, seconds_per_frame: float, num_videos: int, seed: int) -> list[float]:
    """Seconds per frame of every video: constant, or with the spread that the videos of a run had."""
    if videos_csv is None:
        return [seconds_per_frame] * num_videos
    with videos_csv.open() as file:
        measured = [float(row["seconds"]) / float(row["num_frames"]) for row in csv.DictReader(file)]
    scale = seconds_per_frame / (math.fsum(measured) / len(measured))
    picked = torch.randint(len(measured), (num_videos,), generator=torch.Generator().manual_seed(seed))
    return [scale * measured[index] for index in picked.tolist()]


def computed_frames(num_frames: int, clip_length: int) -> int:
    """Frames that are computed: those of an overlapping last clip twice."""
    return sum(length for _, length, _ in clip_starts(num_frames, clip_length))


def makespan(shards: list[list[Video]], seconds: dict[str, float]) -> float:
    """Seconds until the last process ends."""
    return max(math.fsum(seconds[video.name] for video in shard) for shard in shards)


if __name__ == "__main__":
    main()
