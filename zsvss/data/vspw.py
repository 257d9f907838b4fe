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

from zsvss.data.datamodule import VideoDataModule
from zsvss.data.images import list_images, read_mask
from zsvss.data.taxonomy import Taxonomy
from zsvss.data.video import FileVideo, Video

_CLASSES = (
    "wall", "ceiling", "door", "stair", "ladder", "escalator", "Playground_slide", "handrail_or_fence", "window",
    "rail", "goal", "pillar", "pole", "floor", "ground", "grass", "sand", "athletic_field", "road", "path",
    "crosswalk", "building", "house", "bridge", "tower", "windmill", "well_or_well_lid", "other_construction",
    "sky", "mountain", "stone", "wood", "ice", "snowfield", "grandstand", "sea", "river", "lake", "waterfall",
    "water", "billboard_or_Bulletin_Board", "sculpture", "pipeline", "flag", "parasol_or_umbrella",
    "cushion_or_carpet", "tent", "roadblock", "car", "bus", "truck", "bicycle", "motorcycle", "wheeled_machine",
    "ship_or_boat", "raft", "airplane", "tyre", "traffic_light", "lamp", "person", "cat", "dog", "horse", "cattle",
    "other_animal", "tree", "flower", "other_plant", "toy", "ball_net", "backboard", "skateboard", "bat", "ball",
    "cupboard_or_showcase_or_storage_rack", "box", "traveling_case_or_trolley_case", "basket", "bag_or_package",
    "trash_can", "cage", "plate", "tub_or_bowl_or_pot", "bottle_or_cup", "barrel", "fishbowl", "bed", "pillow",
    "table_or_desk", "chair_or_seat", "bench", "sofa", "shelf", "bathtub", "gun", "commode", "roaster",
    "other_machine", "refrigerator", "washing_machine", "Microwave_oven", "fan", "curtain", "textiles", "clothes",
    "painting_or_poster", "mirror", "flower_pot_or_vase", "clock", "book", "tool", "blackboard", "tissue",
    "screen_or_television", "computer", "printer", "Mobile_phone", "keyboard", "other_electronic_product", "fruit",
    "food", "instrument", "train",
)  # fmt: skip
_PALETTE: tuple[tuple[int, int, int], ...] = (
    (120, 120, 120), (180, 120, 120), (6, 230, 230), (80, 50, 50), (4, 200, 3), (120, 120, 80), (140, 140, 140),
    (204, 5, 255), (230, 230, 230), (4, 250, 7), (224, 5, 255), (235, 255, 7), (150, 5, 61), (120, 120, 70),
    (8, 255, 51), (255, 6, 82), (143, 255, 140), (204, 255, 4), (255, 51, 7), (204, 70, 3), (0, 102, 200),
    (61, 230, 250), (255, 6, 51), (11, 102, 255), (255, 7, 71), (255, 9, 224), (9, 7, 230), (220, 220, 220),
    (255, 9, 92), (112, 9, 255), (8, 255, 214), (7, 255, 224), (255, 184, 6), (10, 255, 71), (255, 41, 10),
    (7, 255, 255), (224, 255, 8), (102, 8, 255), (255, 61, 6), (255, 194, 7), (255, 122, 8), (0, 255, 20),
    (255, 8, 41), (255, 5, 153), (6, 51, 255), (235, 12, 255), (160, 150, 20), (0, 163, 255), (140, 140, 140),
    (250, 10, 15), (20, 255, 0), (31, 255, 0), (255, 31, 0), (255, 224, 0), (153, 255, 0), (0, 0, 255),
    (255, 71, 0), (0, 235, 255), (0, 173, 255), (31, 0, 255), (11, 200, 200), (255, 82, 0), (0, 255, 245),
    (0, 61, 255), (0, 255, 112), (0, 255, 133), (255, 0, 0), (255, 163, 0), (255, 102, 0), (194, 255, 0),
    (0, 143, 255), (51, 255, 0), (0, 82, 255), (0, 255, 41), (0, 255, 173), (10, 0, 255), (173, 255, 0),
    (0, 255, 153), (255, 92, 0), (255, 0, 255), (255, 0, 245), (255, 0, 102), (255, 173, 0), (255, 0, 20),
    (255, 184, 184), (0, 31, 255), (0, 255, 61), (0, 71, 255), (255, 0, 204), (0, 255, 194), (0, 255, 82),
    (0, 10, 255), (0, 112, 255), (51, 0, 255), (0, 194, 255), (0, 122, 255), (0, 255, 163), (255, 153, 0),
    (0, 255, 10), (255, 112, 0), (143, 255, 0), (82, 0, 255), (163, 255, 0), (255, 235, 0), (8, 184, 170),
    (133, 0, 255), (0, 255, 92), (184, 0, 255), (255, 0, 31), (0, 184, 255), (0, 214, 255), (255, 0, 112),
    (92, 255, 0), (0, 224, 255), (112, 224, 255), (70, 184, 160), (163, 0, 255), (153, 0, 255), (71, 255, 0),
    (255, 0, 163), (255, 204, 0), (255, 0, 143), (0, 255, 235), (133, 255, 0),
)  # fmt: skip

VSPW_SHIFTED = Taxonomy(
    name="vspw-shifted",
    classes=_CLASSES,
    palette=_PALETTE,
    class_of_raw={raw: raw - 1 for raw in range(1, 125)},
    void=frozenset({0, 254, 255}),
)
VSPW_RAW = Taxonomy(
    name="vspw-raw",
    classes=("void", *_CLASSES[:-1]),
    palette=((0, 0, 0), *_PALETTE[:-1]),
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
