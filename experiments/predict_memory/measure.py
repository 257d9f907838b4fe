"""Peak memory and time of `predict` on videos of different lengths: it must not grow with the length.

    python experiments/predict_memory/measure.py --frames 100 2000

Makes an MP4 of each length from a generated scene, runs the command line on it in a process of its own, and prints a
Markdown table. Further arguments go to the command line.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from zsvss.data.scenes import Scene, scene_split
from zsvss.viz.browser_video import BrowserVideo

COMMAND = [sys.executable, "-m", "zsvss.run", "predict", "--config", "predict_embedded.yaml"]
SMALL = ["--model.input_size", "[64,128]", "--model.context.num_clusters", "2", "--model.context.num_restarts", "1"]


def write_movie(path: Path, num_frames: int, height: int, width: int) -> None:
    """Write the frames of a scene, forth and back as often as it takes."""
    scene = Scene(scene_split("val")[0], num_frames=50, height=height, width=width)
    frames = [scene.render(number)[0] for number in range(50)]
    there_and_back = frames + frames[-2:0:-1]
    with BrowserVideo(path, 15) as movie:
        for number in range(num_frames):
            movie.write(there_and_back[number % len(there_and_back)])


def measure(movie: Path, output: Path, options: list[str]) -> tuple[float, float]:
    """Peak memory (MiB) of the largest process of a run, and its seconds."""
    start = time.perf_counter()
    subprocess.run([*COMMAND, "--data.input", str(movie), "--output", str(output), *options], check=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[100, 2000], help="lengths, shortest first")
    parser.add_argument("--size", type=int, nargs=2, default=[128, 224], help="height and width of the video")
    parsed, options = parser.parse_known_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        # The largest child so far is what the system reports: only an order from short to long tells them apart.
        for num_frames in sorted(parsed.frames):
            movie = Path(folder) / f"{num_frames}.mp4"
            write_movie(movie, num_frames, *parsed.size)
            peak, seconds = measure(movie, Path(folder) / str(num_frames), [*SMALL, *options])
            rows.append(f"| {num_frames} | {peak:.0f} | {seconds:.0f} |")
    print("\n".join(["| frames | peak memory (MiB) | seconds |", "| ---: | ---: | ---: |", *rows]))


if __name__ == "__main__":
    main()
