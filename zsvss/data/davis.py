"""DAVIS (Perazzi et al. 2016, Pont-Tuset et al. 2017): short videos of objects at 24 frames/s, every frame labelled.

The releases of both years::

    <root>/JPEGImages/480p/<video>/00000.jpg        854x480; Full-Resolution holds the originals
    <root>/Annotations/480p/<video>/00000.png
    <root>/ImageSets/480p/{train,val}.txt           2016: 30 and 20 videos, in lines of frame and mask
    <root>/ImageSets/2017/{train,val,...}.txt       2017: 60 and 30 videos, one a line; beside it the lists of 2016

Frames and masks of some videos alone, without lists (split ``all``)::

    <root>/frames/<video>/00000.jpg
    <root>/masks/<video>/00000.png

2016 has one object a video: 0 is background and any other value the object, 255 too. 2017 has several, in palette
masks: 0 is background, 1, 2, ... are objects, 255 is void. The test sets have the first frame's mask alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from zsvss.data.datamodule import VideoDataModule
from zsvss.data.images import ByteArray, check_images, list_images, mask_size, read_mask
from zsvss.data.taxonomy import Taxonomy, bit_palette
from zsvss.data.video import UNLABELLED, FileVideo, Video

Split = Literal["train", "val", "test-dev", "test-challenge", "all"]

MAX_OBJECTS = 20
"""More than any video has; the number of classes is the same for all videos."""

DAVIS_2016 = Taxonomy(
    name="davis-2016",
    classes=("background", "object"),
    palette=bit_palette(2),
    class_of_raw={raw: min(raw, 1) for raw in range(256)},
    objects=(1,),
)
DAVIS_2017 = Taxonomy(
    name="davis-2017",
    classes=("background", *(f"object {number}" for number in range(1, MAX_OBJECTS + 1))),
    palette=bit_palette(MAX_OBJECTS + 1),
    class_of_raw={raw: raw for raw in range(MAX_OBJECTS + 1)},
    objects=tuple(range(1, MAX_OBJECTS + 1)),
)


def read_object(path: Path) -> ByteArray:
    """A mask of 2016 as 0 and 255; some files of the release are colour images.

    Raises:
        ValueError: If it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            values = np.array(image.convert("RGB") if image.mode in ("RGB", "RGBA", "LA") else image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path}: this mask cannot be decoded ({error}); replace it by a good copy") from error
    is_object = values.reshape(*values.shape[:2], -1).any(-1)
    return np.where(is_object, UNLABELLED, 0).astype(np.uint8)


def read_objects(path: Path) -> ByteArray:
    """A mask of 2017.

    Raises:
        ValueError: If it cannot be decoded or holds values that are neither objects nor void.
    """
    values_HW = read_mask(path)
    wrong = values_HW[(values_HW > MAX_OBJECTS) & (values_HW != UNLABELLED)]
    if wrong.size:
        raise ValueError(
            f"{path} has the value {wrong.max()}; masks of DAVIS 2017 hold objects 1..{MAX_OBJECTS}, background 0 and "
            f"void {UNLABELLED}. Are its masks those of 2016? Then set data.year to 2016"
        )
    return values_HW


class Davis(VideoDataModule):
    """DAVIS, scored by region similarity and contour accuracy of its objects.

    Args:
        root: Folder of the release; the layouts are shown at the top of this module.
        year: ``2016`` (one object a video) or ``2017``.
        split: ``train`` or ``val``; for 2017 also ``test-dev`` and ``test-challenge``, to predict; ``all`` takes every
            video of the folder.
        resolution: ``480p``, at which results are published, or ``Full-Resolution``.
        names: Take only these videos.
    """

    given_frames = "first"

    def __init__(
        self,
        root: str | Path,
        year: Literal["2016", "2017", 2016, 2017] = "2017",
        split: Split = "val",
        resolution: Literal["480p", "Full-Resolution"] = "480p",
        names: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        allowed = get_args(Split) if str(year) == "2017" else ("train", "val", "all")
        if str(year) not in ("2016", "2017") or split not in allowed:
            raise ValueError(f"data.year {year!r}, data.split {split!r}; allowed: 2016 or 2017, and {allowed}")
        self.root = Path(root).expanduser()
        self.year = str(year)
        self.split = split
        self.resolution = resolution
        self.names = names
        self.name = self.taxonomy.name

    @property
    def taxonomy(self) -> Taxonomy:
        """The objects as the year numbers them."""
        return DAVIS_2016 if self.year == "2016" else DAVIS_2017

    def find_videos(self) -> list[Video]:
        """The videos of the split's list, in its order."""
        frames, masks = self.root / "JPEGImages" / self.resolution, self.root / "Annotations" / self.resolution
        if not frames.is_dir() and (self.root / "frames").is_dir():
            frames, masks = self.root / "frames", self.root / "masks"
        for folder in (frames, masks):
            if not folder.is_dir():
                raise FileNotFoundError(
                    f"{folder} not found; DAVIS is read from JPEGImages/{self.resolution}/<video>/00000.jpg and "
                    f"Annotations/{self.resolution}/<video>/00000.png, or from frames/<video>/00000.jpg and "
                    "masks/<video>/00000.png: set data.root to the folder of both"
                )
        listed = self._listed(frames)
        unknown = sorted(set(self.names or ()) - set(listed))
        if unknown:
            raise ValueError(f"data.names has {unknown[0]!r}; split {self.split!r} has {', '.join(listed)}")
        wanted = [name for name in listed if self.names is None or name in self.names]
        return [self._check(frames / name, masks / name) for name in wanted]

    def _listed(self, frames: Path) -> list[str]:
        """Names of the split's videos."""
        if self.split == "all":
            names = sorted(path.name for path in frames.iterdir() if path.is_dir())
            if not names:
                raise ValueError(f"{frames} holds no folder of frames")
            return names
        folders = [self.year] if self.year == "2017" else [self.year, self.resolution, "480p", "1080p"]
        lists = [self.root / "ImageSets" / folder / f"{self.split}.txt" for folder in folders]
        found = next((path for path in lists if path.is_file()), None)
        if found is None:
            raise FileNotFoundError(
                f"{lists[0]} not found, the list of the split's videos; unpack the release again, or take every video "
                "of the folder by --data.split all"
            )
        # 2017: a name a line. 2016: a frame and its mask, /JPEGImages/480p/<video>/00000.jpg.
        words = [line.split()[0] for line in found.read_text(encoding="utf-8").splitlines() if line.strip()]
        names = list(dict.fromkeys(Path(word).parent.name if "/" in word else word for word in words))
        if not names:
            raise ValueError(f"{found} names no video; it should hold one a line")
        return names

    def _check(self, frame_folder: Path, mask_folder: Path) -> FileVideo:
        frames = list_images(frame_folder)
        if not frames:
            raise ValueError(f"{frame_folder} holds no frames; unpack the release again")
        size = check_images(frames).size
        labels: list[Path | None] = []
        for number, frame in enumerate(frames):
            mask = mask_folder / f"{frame.stem}.png"
            if mask.is_file():
                if mask_size(mask) != size:
                    height, width = mask_size(mask)
                    raise ValueError(
                        f"{mask} is {width}x{height} but its frame is {size[1]}x{size[0]}; frames and masks must be of "
                        "one resolution: see data.resolution"
                    )
            elif number == 0 or not self.split.startswith("test"):
                raise FileNotFoundError(f"{mask} not found, the mask of {frame}; unpack the release again")
            labels.append(mask if mask.is_file() else None)
        read_labels = read_object if self.year == "2016" else read_objects
        return FileVideo(frame_folder.name, len(frames), frames, tuple(labels), read_labels, self.decoder)
