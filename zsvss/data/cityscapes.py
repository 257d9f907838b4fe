"""Cityscapes (Cordts et al. 2016): 30-frame snippets of street scenes at 17 Hz, the 20th frame of each labelled.

::

    <root>/leftImg8bit_sequence/{train,val}/<city>/<city>_<sequence>_<frame>_leftImg8bit.png      2048x1024
    <root>/gtFine/{train,val}/<city>/<city>_<sequence>_<frame>_gtFine_labelIds.png                 the 20th frame only

A video is one snippet: the labelled frame, the 19 before it and the 10 after it (500 in val, 2975 in train). Label ids
map to 19 classes, the others are ignored. Since one frame in thirty is labelled, video consistency is not defined here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from zsvss.data.datamodule import VideoDataModule
from zsvss.data.images import read_mask
from zsvss.data.taxonomy import Taxonomy
from zsvss.data.video import FileVideo, Video

CITYSCAPES_19 = Taxonomy(
    name="cityscapes-19",
    classes=(
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
        "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    ),
    palette=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
        (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142),
        (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
    class_of_raw={
        7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14,
        28: 15, 31: 16, 32: 17, 33: 18,
    },
    void=frozenset({*range(7), 9, 10, 14, 15, 16, 18, 29, 30, 255}),  # 255: the licence plates' -1
)  # fmt: skip

LABELLED_FRAME = 19
SNIPPET_LENGTH = 30
_MASK_ENDING = "_gtFine_labelIds.png"


class Cityscapes(VideoDataModule):
    """Cityscapes snippets, scored on their 20th frame.

    Args:
        root: Folder of the release; the layout is shown at the top of this module.
        split: ``train`` or ``val``; the ground truth of test is not public.
    """

    name = "cityscapes"

    def __init__(self, root: str | Path, split: Literal["train", "val"] = "val", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if split not in ("train", "val"):
            raise ValueError(f"data.split is {split!r}; allowed: train, val")
        if self.limit_frames is not None and self.limit_frames <= LABELLED_FRAME:
            raise ValueError(
                f"data.limit_frames is {self.limit_frames}, but Cityscapes is scored on frame {LABELLED_FRAME + 1} of "
                f"each snippet; allow at least {LABELLED_FRAME + 1}"
            )
        self.root = Path(root).expanduser()
        self.split = split

    @property
    def taxonomy(self) -> Taxonomy:
        """The 19 classes of the benchmark."""
        return CITYSCAPES_19

    def find_videos(self) -> list[Video]:
        """One video a labelled frame, by name."""
        mask_root = self.root / "gtFine" / self.split
        frame_root = self.root / "leftImg8bit_sequence" / self.split
        for folder, package in (
            (frame_root, "leftImg8bit_sequence_trainvaltest.zip"),
            (mask_root, "gtFine_trainvaltest.zip"),
        ):
            if not folder.is_dir():
                raise FileNotFoundError(
                    f"{folder} not found; Cityscapes is read from leftImg8bit_sequence/<split>/<city>/"
                    "<city>_<sequence>_<frame>_leftImg8bit.png and gtFine/<split>/<city>/"
                    f"<city>_<sequence>_<frame>{_MASK_ENDING}: set data.root to the folder of both, and unpack "
                    f"{package} there"
                )
        masks = sorted(mask_root.glob(f"*/*{_MASK_ENDING}"))
        if not masks:
            raise ValueError(f"{mask_root} holds no <city>/*{_MASK_ENDING}; unpack gtFine_trainvaltest.zip there")
        present = {city.name: {path.name for path in city.iterdir()} for city in frame_root.iterdir() if city.is_dir()}
        return [self._check(mask, frame_root, present) for mask in masks]

    def _check(self, mask: Path, frame_root: Path, present: dict[str, set[str]]) -> FileVideo:
        name = mask.name.removesuffix(_MASK_ENDING)
        sequence, _, number = name.rpartition("_")
        if not number.isdecimal():
            raise ValueError(f"{mask}: expected the name <city>_<sequence>_<frame>{_MASK_ENDING}")
        first = int(number) - LABELLED_FRAME
        city = mask.parent.name
        frames = tuple(
            frame_root / city / f"{sequence}_{index:06d}_leftImg8bit.png"
            for index in range(first, first + SNIPPET_LENGTH)
        )
        for frame in frames:
            if frame.name not in present.get(city, set()):
                raise FileNotFoundError(
                    f"{frame} not found; {mask.name} labels frame {LABELLED_FRAME + 1} of a snippet of "
                    f"{SNIPPET_LENGTH}, {frames[0].name} .. {frames[-1].name}: unpack "
                    "leftImg8bit_sequence_trainvaltest.zip again"
                )
        labels = tuple(mask if index == LABELLED_FRAME else None for index in range(SNIPPET_LENGTH))
        return FileVideo(name, SNIPPET_LENGTH, frames, labels, read_mask, self.decoder)
