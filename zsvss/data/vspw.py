"""VSPW (Miao et al. 2021): 3,536 videos in the wild at 15 frames/s, every frame labelled with 124 classes.

The 480p release::

    <root>/{train,val,test}.txt                    one video name a line; 2806, 343 and 387 videos
    <root>/data/<video>/origin/<frame>.jpg         frame numbers need not start at 0
    <root>/data/<video>/mask/<frame>.png           0 void, 1..124 classes, 254 and 255 ignored; not for test

Class names are those of the release's ``label_num_dic_final.json``, in its order; the colours are those its authors
use for the same classes in VIPSeg (``Playground_slide`` and ``car`` share one).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from zsvss.data.class_lists import VSPW_CLASSES, VSPW_COLORS
from zsvss.data.datamodule import VideoDataModule
from zsvss.data.images import list_images, read_mask
from zsvss.data.taxonomy import Taxonomy
from zsvss.data.video import FileVideo, Video

VSPW_SHIFTED = Taxonomy(
    name="vspw-shifted",
    classes=VSPW_CLASSES,
    palette=VSPW_COLORS,
    class_of_raw={raw: raw - 1 for raw in range(1, 125)},
    void=frozenset({0, 254, 255}),
)
VSPW_RAW = Taxonomy(
    name="vspw-raw",
    classes=("void", *VSPW_CLASSES[:-1]),
    palette=((0, 0, 0), *VSPW_COLORS[:-1]),
    class_of_raw={raw: raw for raw in range(124)},
    void=frozenset({124, 254, 255}),
)


class VSPW(VideoDataModule):
    """VSPW with either reading of its ground truth.

    Args:
        root: Folder of the release; the layout is shown at the top of this module.
        split: ``train``, ``val`` or ``test`` (no ground truth: ``predict`` only).
        protocol: ``shifted``: void is ignored and raw 1..124 are the 124 classes. ``raw``: the evaluation script of the
            paper's authors: void is scored as class 0 and raw 124 (train) is dropped.
    """

    name = "vspw"

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "val", "test"] = "val",
        protocol: Literal["shifted", "raw"] = "shifted",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if split not in ("train", "val", "test"):
            raise ValueError(f"data.split is {split!r}; allowed: train, val, test")
        if protocol not in ("shifted", "raw"):
            raise ValueError(f"data.protocol is {protocol!r}; allowed: shifted, raw")
        self.root = Path(root).expanduser()
        self.split = split
        self.protocol = protocol

    @property
    def taxonomy(self) -> Taxonomy:
        """The 124 classes as the protocol reads them."""
        return VSPW_SHIFTED if self.protocol == "shifted" else VSPW_RAW

    def find_videos(self) -> list[Video]:
        """The videos of the split file, in its order."""
        split_file = self.root / f"{self.split}.txt"
        if not split_file.is_file():
            raise FileNotFoundError(
                f"{split_file} not found; the VSPW 480p release has {{train,val,test}}.txt (one video a line), "
                "data/<video>/origin/<frame>.jpg and data/<video>/mask/<frame>.png: set data.root to its folder"
            )
        names = split_file.read_text(encoding="utf-8").split()
        if not names:
            raise ValueError(f"{split_file} names no video; it should hold one video name a line")
        return [self._check(name) for name in names]

    def _check(self, name: str) -> FileVideo:
        frame_folder = self.root / "data" / name / "origin"
        mask_folder = self.root / "data" / name / "mask"
        if not frame_folder.is_dir():
            raise FileNotFoundError(
                f"{frame_folder} not found, the frames of video {name!r} of {self.split}.txt; VSPW's layout is "
                "data/<video>/origin/<frame>.jpg"
            )
        frames = list_images(frame_folder)
        if not frames:
            raise ValueError(f"{frame_folder} holds no frames; unpack the release again")
        labels: tuple[Path | None, ...] | None = None
        if self.split != "test" or mask_folder.is_dir():
            present = {path.name for path in mask_folder.iterdir()} if mask_folder.is_dir() else set()
            for frame in frames:
                if f"{frame.stem}.png" not in present:
                    raise FileNotFoundError(
                        f"{mask_folder / frame.stem}.png not found, the mask of {frame}; every VSPW frame of train and "
                        "val has one: unpack the release again"
                    )
            labels = tuple(mask_folder / f"{frame.stem}.png" for frame in frames)
        return FileVideo(name, len(frames), frames, labels, read_mask, self.decoder)
