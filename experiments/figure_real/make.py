"""Draw what each stage makes of real frames: `python -m experiments.figure_real.make`.

One row a stage of the paper's method (frames, coarse labels, refined labels, segmentation), and one of what
`zsvss predict` does without settings (`configs/predict_embedded.yaml`); one column a frame. The frames are those of
`docs/swan`: the sequence "blackswan" of DAVIS 2016, CC BY 4.0.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from experiments.figure_qualitative.make import draw, enlarge
from zsvss.backbones.embedded import Embedded
from zsvss.commands.config_files import find_config
from zsvss.commands.lightning import Rehearsal, import_components
from zsvss.data.clip import Clip
from zsvss.data.folder import VideoFolder
from zsvss.data.loader import ClipLoader
from zsvss.module import clip_generator
from zsvss.results.segment_colors import palette
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.modulation import MaskedModulation
from zsvss.stages.refinement import CorrespondenceRefinement
from zsvss.stages.trace import Trace
from zsvss.viz.overlay import overlay

ROOT = Path(__file__).parent.parent.parent
WIDTH = 300  # of a frame in the figure


def rows(args: argparse.Namespace) -> dict[str, list[np.ndarray]]:
    """Rows of the figure: title -> one image a frame."""
    data = VideoFolder(input=str(args.input), num_workers=0)
    (clip,) = ClipLoader(data.plan(data.videos()), num_workers=0)
    frames_THW3 = clip.frames_THW3[args.frames]
    backbone = Embedded()
    backbone.load()
    paper = VideoSegmenter(
        backbone, KNNSceneContext(args.clusters), CorrespondenceRefinement(), MaskedModulation(), padding=32
    )
    trace, generator = Trace(), clip_generator(0, data.name, clip.video, 0)
    labels_THW = paper(frames_THW3, generator=generator, trace=trace).labels_THW
    shown = np.stack([_shown(frame) for frame in frames_THW3.numpy()])

    def row(labels: torch.Tensor) -> list[np.ndarray]:
        size = (shown.shape[1], shown.shape[2])
        small = [enlarge(labels_HW, size).numpy() for labels_HW in labels]
        return [overlay(*pair, palette(args.clusters), alpha=0.5) for pair in zip(shown, small, strict=True)]

    return {
        "frame": list(shown),
        "scene context": row(trace.coarse_Tn.unflatten(1, trace.grid)),
        "+ refinement": row(trace.refined_Tn.unflatten(1, trace.grid)),
        "+ modulation": row(labels_THW),
        "predict (fast)": row(fast(clip, data.name, args.input)[args.frames]),
    }


def fast(clip: Clip, dataset: str, folder: Path) -> torch.Tensor:
    """Labels of the whole clip by the settings of `predict`, with the random numbers that it draws."""
    import_components()
    config = str(find_config("predict_embedded.yaml"))
    built = Rehearsal(["predict", "--config", config, "--data.input", str(folder)]).build()
    built.model.backbone.load()
    model = built.trainer.strategy.precision_plugin.convert_module(built.model.eval())
    return model.segmenter(clip.frames_THW3, generator=clip_generator(model.seed, dataset, clip.video, 0)).labels_THW


def _shown(frame_HW3: np.ndarray) -> np.ndarray:
    """A frame at the figure's size."""
    height = round(WIDTH * frame_HW3.shape[0] / frame_HW3.shape[1])
    return np.asarray(Image.fromarray(frame_HW3).resize((WIDTH, height), Image.Resampling.LANCZOS))


def main() -> None:
    """Segment the frames and save the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--input", type=Path, default=ROOT / "docs" / "swan")
    parser.add_argument("--frames", type=int, nargs="+", default=[0, 4, 8, 12], help="of the first 14")
    parser.add_argument("--clusters", type=int, default=6, help="of the paper's method")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "real_frames.png")
    args = parser.parse_args()
    sheet = draw(rows(args))
    sheet.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(args.output, optimize=True)


if __name__ == "__main__":
    main()
