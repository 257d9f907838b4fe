"""CamVid (Brostow et al. 2009): street scenes from a car, densely labelled at 1 Hz or 15 Hz.

Two label sets on disk:

- ``11``, the split and the classes of SegNet (480x360)::

      <root>/{train,val,test}/<sequence>_<frame>.png
      <root>/{trainannot,valannot,testannot}/<sequence>_<frame>.png      values 0..10, 11 = unlabelled

- ``32``, the original release (960x720, 701 labelled frames)::

      <root>/701_StillsRaw_full/<sequence>_<frame>.png
      <root>/LabeledApproved_full/<sequence>_<frame>_L.png               colours

A video is one sequence in frame order. Only ``val`` (sequence 0016E5, frames 7959..8159, every second) is dense
enough, at 15 Hz, for video consistency to mean something.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from zsvss.data.class_lists import CAMVID_COLORS
from zsvss.data.datamodule import VideoDataModule
from zsvss.data.images import ByteArray, check_images, list_images, mask_size, read_mask, read_rgb
from zsvss.data.taxonomy import Taxonomy
from zsvss.data.video import FileVideo, Video

CAMVID_11 = Taxonomy(
    name="camvid-11",
    classes=(
        "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
    ),
    palette=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0), (192, 128, 128),
        (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
    class_of_raw={class_id: class_id for class_id in range(11)},
    void=frozenset({11}),
)  # fmt: skip

_SCORED_32 = tuple(name for name in CAMVID_COLORS if name != "Void")
CAMVID_32 = Taxonomy(
    name="camvid-32",
    classes=_SCORED_32,
    palette=tuple(CAMVID_COLORS[name] for name in _SCORED_32),
    class_of_raw={list(CAMVID_COLORS).index(name): class_id for class_id, name in enumerate(_SCORED_32)},
    void=frozenset({list(CAMVID_COLORS).index("Void")}),
)
_MAX_UNKNOWN = 0.01


def read_mask_11(path: Path) -> ByteArray:
    """A mask of the 11-class release.

    Raises:
        ValueError: If its values are those of the other label set.
    """
    values_HW = read_mask(path)
    foreign = values_HW[(values_HW > 11) & (values_HW < len(CAMVID_COLORS))]
    if len(np.unique(foreign)) > 1 or foreign.size > _MAX_UNKNOWN * values_HW.size:
        raise ValueError(
            f"{path} holds values up to {foreign.max()}: these are positions in the table of 32 colours, not the 11 "
            "classes (0..10) and 11 for unlabelled. Use SegNet's masks, or the release's colour masks with data.labels "
            "'32'"
        )
    return values_HW


def read_colour_mask(path: Path) -> ByteArray:
    """A colour-coded mask of the 32-class release as raw values: positions in its colour table, 255 for other colours.

    Raises:
        ValueError: If more than one pixel in a hundred has a colour that is not in the table.
    """
    with Image.open(path) as image:
        if image.mode not in ("RGB", "RGBA", "P"):
            raise ValueError(
                f"{path}: mode {image.mode}; the 32-class masks are colour-coded. Is this the 11-class release? "
                "Then set data.labels to '11'"
            )
    colours_HW3 = read_rgb(path).astype(np.int64)
    codes_HW = (colours_HW3[..., 0] << 16) + (colours_HW3[..., 1] << 8) + colours_HW3[..., 2]
    values_HW = np.full(codes_HW.shape, 255, np.uint8)
    for value, (red, green, blue) in enumerate(CAMVID_COLORS.values()):
        values_HW[codes_HW == (red << 16) + (green << 8) + blue] = value
    unknown = float((values_HW == 255).mean())
    if unknown > _MAX_UNKNOWN:
        raise ValueError(
            f"{path}: {unknown:.1%} of the pixels have colours that are not CamVid's; was the mask resized with "
            "smoothing, or saved as JPEG? Use the original PNGs"
        )
    return values_HW


class CamVid(VideoDataModule):
    """CamVid with 11 or 32 label colours (the 32nd, Void, is ignored).

    Args:
        root: Folder of the release; the layouts are shown at the top of this module.
        split: SegNet's: ``train`` 367 frames, ``val`` 101, ``test`` 233; ``all`` (32 only) all 701.
        labels: ``11`` or ``32``.
    """

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "val", "test", "all"] = "val",
        labels: Literal["11", "32", 11, 32] = "11",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        allowed = ("train", "val", "test") if str(labels) == "11" else ("train", "val", "test", "all")
        if str(labels) not in ("11", "32") or split not in allowed:
            raise ValueError(f"data.labels {labels!r}, data.split {split!r}; allowed: 11 or 32, and {allowed}")
        self.root = Path(root).expanduser()
        self.split = split
        self.labels = str(labels)
        self.name = self.taxonomy.name

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes of the chosen label set."""
        return CAMVID_11 if self.labels == "11" else CAMVID_32

    @property
    def consistency_caveat(self) -> str | None:
        """What to know of video consistency on this split."""
        if self.split == "val":
            return None
        return f"most of CamVid's {self.split} frames are a second apart, so that VC compares scenes that have moved on"

    def find_videos(self) -> list[Video]:
        """One video a sequence."""
        read_labels: Callable[[Path], ByteArray]
        if self.labels == "11":
            frame_folder, label_folder = self.root / self.split, self.root / f"{self.split}annot"
            suffix, read_labels = "", read_mask_11
        else:
            frame_folder, label_folder = self.root / "701_StillsRaw_full", self.root / "LabeledApproved_full"
            suffix, read_labels = "_L", read_colour_mask
        for folder in (frame_folder, label_folder):
            if not folder.is_dir():
                raise FileNotFoundError(
                    f"{folder} not found; CamVid with {self.labels} labels is read from "
                    f"{frame_folder}/<sequence>_<frame>.png and {label_folder}/<sequence>_<frame>{suffix}.png: "
                    "set data.root and data.labels to match"
                )
        sequences: dict[str, list[Path]] = defaultdict(list)
        for path in list_images(frame_folder):
            sequence, _, frame = path.stem.rpartition("_")
            if self.labels == "11" or self.split in ("all", _split_of(sequence, frame)):
                sequences[sequence].append(path)
        if not sequences:
            raise ValueError(f"{frame_folder} holds no frames of split {self.split!r} named <sequence>_<frame>.png")
        videos: list[Video] = []
        for sequence, frames in sorted(sequences.items()):
            masks = tuple(label_folder / f"{path.stem}{suffix}.png" for path in frames)
            _check_masks(frames, masks)
            # Of the other label set? All small masks are asked now, large ones when they are read.
            for mask in masks if self.labels == "11" else masks[:1]:
                read_labels(mask)
            videos.append(FileVideo(sequence, len(frames), tuple(frames), masks, read_labels, self.decoder))
        return videos


def _check_masks(frames: list[Path], masks: tuple[Path, ...]) -> None:
    size = check_images(frames).size
    for frame, mask in zip(frames, masks, strict=True):
        if not mask.is_file():
            raise FileNotFoundError(f"{mask} not found, the mask of {frame}; every frame of CamVid has one")
        if mask_size(mask) != size:
            height, width = mask_size(mask)
            raise ValueError(
                f"{mask} is {width}x{height} but its frame is {size[1]}x{size[0]}; frames and masks of the two CamVid "
                "releases (480x360 and 960x720) cannot be mixed"
            )


def _split_of(sequence: str, frame: str) -> str:
    """SegNet's split of the 701 labelled frames."""
    number = int(frame) if frame.isdigit() else -1
    if sequence == "0016E5" and 7959 <= number <= 8159:
        return "val"
    if sequence == "Seq05VD" or (sequence == "0001TP" and number >= 8550):
        return "test"
    return "train"
