"""Draw `docs/shots.png` and `docs/late.png`: `python -m experiments.footage.pictures DAVIS`.

Both are frames of the overlay that `zsvss predict --config predict_embedded.yaml` writes. The first video is the swan
of `docs/swan`, a generated scene and the swan again; the second is a DAVIS sequence into which the object of another
one comes. DAVIS 2016 (Perazzi et al.) is CC BY 4.0.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from experiments.footage.late_videos import paste, read_sequence
from zsvss.data.images import list_images, read_rgb
from zsvss.data.scenes import Scene
from zsvss.viz.overlay import side_by_side

ROOT = Path(__file__).parent.parent.parent
SIZE = (252, 448)  # of the frames
SCENE = 5

UInt8 = npt.NDArray[np.uint8]


def cut_video() -> list[UInt8]:
    """Fourteen frames of the swan, fourteen of a scene, the swan again."""
    swan = [read_rgb(path) for path in list_images(ROOT / "docs" / "swan")]
    swan = [cv2.resize(frame, SIZE[::-1], interpolation=cv2.INTER_AREA).astype(np.uint8) for frame in swan]
    scene = Scene(SCENE, num_frames=14, height=SIZE[0], width=SIZE[1])
    return swan + [scene.render(number)[0] for number in range(14)] + swan


def late_video(davis: Path, ground: str, late: str, seed: int) -> list[UInt8]:
    """A sequence into which the object of another one comes in."""
    frames = read_sequence(davis, ground, SIZE).frames_THW3
    paste(
        frames, np.zeros(frames.shape[:3], np.uint8), read_sequence(davis, late, SIZE), 1, np.random.default_rng(seed)
    )
    return list(frames)


def overlays(frames: Sequence[UInt8], wanted: Sequence[int]) -> UInt8:
    """Frames of the overlay that `predict` makes of a video, side by side."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "video").mkdir()
        for number, frame_HW3 in enumerate(frames):
            Image.fromarray(frame_HW3).save(Path(folder) / "video" / f"{number:05d}.png")
        command = ["predict", "--config", "predict_embedded.yaml", "--data.input", "video", "--output", "run"]
        subprocess.run([sys.executable, "-m", "zsvss.run", *command], cwd=folder, check=True)
        with av.open(str(Path(folder) / "run" / "predictions" / "video" / "overlay.mp4")) as container:
            drawn = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return side_by_side(*(drawn[number] for number in wanted), gap=6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("davis", type=Path, help="folder with frames/<sequence>/*.jpg and masks/<sequence>/*.png")
    parser.add_argument("--output", type=Path, default=ROOT / "docs")
    parser.add_argument("--only", choices=["shots", "late"])
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.only != "late":
        Image.fromarray(overlays(cut_video(), (0, 14, 28))).save(arguments.output / "shots.png", optimize=True)
    if arguments.only != "shots":
        video = late_video(arguments.davis, "blackswan", "car-roundabout", 0)
        Image.fromarray(overlays(video, (13, 22, 34))).save(arguments.output / "late.png", optimize=True)


if __name__ == "__main__":
    main()
