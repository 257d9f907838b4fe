"""Which blocks carry the semantics (the paper's Figure 2): `python -m experiments.feature_blocks.make`.

For each output block with attention, the first three principal components of its tokens in two frames and, below, one
row of tokens through time, of any video: one figure for the spatial self-attention of an image model, of a video model,
and one for the temporal self-attention of the latter. With `--bars`, also the mean IoU of each block's features on
generated videos.

Shape legend: T frames, n tokens, h w token grid, c channels, H W pixels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from experiments.embedded_backbone.compare import OnePassAClip
from zsvss.backbones.embedded import Embedded
from zsvss.backbones.feature_places import Layer
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion
from zsvss.backbones.unet import UNetBackbone
from zsvss.data.clip import Clip
from zsvss.data.folder import VideoFolder
from zsvss.data.loader import ClipLoader
from zsvss.data.procedural import PROCEDURAL, ProceduralVideos
from zsvss.metrics import FirstFrameNaming, VideoEvaluator
from zsvss.metrics.confusion import segmentation_scores
from zsvss.module import clip_generator
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.features import AttentionFeatures, Features

HERE = Path(__file__).parent
Picture = NDArray[np.uint8]
CELL, GAP, MARGIN, HEAD, TEXT = 144, 6, 118, 100, 23  # legible at half the size


def read_clip(args: argparse.Namespace) -> Clip:
    """The first frames of the video."""
    options = {"num_workers": 0, "clip_length": args.length, "limit_frames": args.length}
    if args.input is None:
        data = ProceduralVideos(num_videos=1, first_video=args.video, **options)
    else:
        data = VideoFolder(input=args.input, **options)
    return next(iter(ClipLoader(data.plan(data.videos()), num_workers=0)))


def read_features(
    backbone: UNetBackbone, clip: Clip, layers: list[Layer], size: tuple[int, int] | None
) -> dict[tuple[Layer, int], Tensor]:
    """Queries [T, h, w, c] of each layer and block at the last step."""
    blocks = backbone.layout.attentive
    parts = {(layer, block): AttentionFeatures((block,), layer) for layer in layers for block in blocks}
    segmenter = VideoSegmenter(backbone, input_size=size)
    with torch.inference_mode():
        images_T3HW = segmenter.to_images(clip.frames_THW3)
        num_frames, _, height, width = images_T3HW.shape
        generator = clip_generator(0, "feature_blocks", clip.video, 0)
        noise = backbone.sample_noise(num_frames, height, width, generator)
        noised = backbone.add_noise(backbone.encode(images_T3HW, noise), noise)
        keys = [key for part in parts.values() for key in part.keys(backbone)]
        recording = backbone.record(noised, backbone.condition(images_T3HW, noise), keys)
        return {
            name: part(backbone, recording, images_T3HW).unflatten(1, part.grid(backbone, recording))
            for name, part in parts.items()
        }


def principal_colors(features_Thwc: Tensor) -> Picture:
    """First three principal components of all tokens as red, green and blue [T, h, w, 3], 2nd to 98th percentile."""
    tokens_nc = features_Thwc.flatten(0, 2).double()
    centred_nc = tokens_nc - tokens_nc.mean(0)
    _, vectors_cc = torch.linalg.eigh(centred_nc.T @ centred_nc)
    components_n3 = centred_nc @ vectors_cc[:, -3:].flip(1)
    low_3, high_3 = (components_n3.quantile(q, 0) for q in (0.02, 0.98))
    scaled_n3 = ((components_n3 - low_3) / (high_3 - low_3).clamp(min=1e-12)).clamp(0, 1)
    colors: Picture = (255 * scaled_n3).round().byte().view(*features_Thwc.shape[:3], 3).numpy()
    return colors


def enlarged(image_HW3: Picture, size: tuple[int, int], smooth: bool = False) -> Image.Image:
    """An image at a width and height in pixels."""
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return Image.fromarray(image_HW3).resize(size, how)


def draw_blocks(title: str, clip: Clip, features: dict[int, Tensor], frames: list[int], row: float) -> Image.Image:
    """Columns: the video and each block. Rows: two frames, and a row of pixels or tokens through time."""
    frames_THW3 = clip.frames_THW3.numpy()
    num_frames, height, width, _ = frames_THW3.shape
    cell = (CELL, round(CELL * height / width))
    columns = {"video": frames_THW3} | {f"block {b}": principal_colors(f) for b, f in features.items()}
    rows = [f"frame {frame}" for frame in frames] + ["x-t slice"]
    sheet = Image.new("RGB", (MARGIN + len(columns) * (CELL + GAP), HEAD + len(rows) * (cell[1] + GAP) + 34), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    pen.text((4, 4), title, fill="black", font=font)
    for i, name in enumerate(rows):
        pen.text((4, HEAD + i * (cell[1] + GAP) + cell[1] / 2), name, fill="black", font=font, anchor="lm")
    for j, (name, images) in enumerate(columns.items()):
        left = MARGIN + j * (CELL + GAP)
        grid = "" if name == "video" else f"\n{images.shape[1]}x{images.shape[2]}"
        pen.multiline_text((left + CELL / 2, 42), name + grid, fill="black", font=font, anchor="ma", align="center")
        line = min(int(row * images.shape[1]), images.shape[1] - 1)
        for i, picture in enumerate([*(images[frame] for frame in frames), images[:, line]]):
            top = HEAD + i * (cell[1] + GAP)
            sheet.paste(enlarged(picture, cell, smooth=name == "video"), (left, top))
            if i < len(frames):
                y = top + int(row * cell[1])
                pen.line((left, y, left + CELL, y), fill="white")
    foot = f"x-t slice: the tokens on the white line; across: x, downwards: frames 0 to {num_frames - 1}"
    pen.text((MARGIN, sheet.height - 4), foot, fill="black", font=font, anchor="lb")
    return sheet


# Mean IoU of each block


def block_scores(backbone: UNetBackbone, num_videos: int, num_frames: int) -> dict[str, dict[str, float]]:
    """Mean over videos of the mIoU of each block's queries and outputs, with the scene context model alone."""
    attentive = backbone.layout.attentive
    kinds: dict[str, dict[int, Features]] = {
        "self-attention q": {block: AttentionFeatures((block,)) for block in attentive},
        "block output": {block: AttentionFeatures((block,), "block", "output") for block in range(3, 12)},
    }
    keys = [key for blocks in kinds.values() for features in blocks.values() for key in features.keys(backbone)]
    shared: Any = OnePassAClip(backbone, keys)
    scores: dict[str, dict[str, list[float]]] = {kind: {} for kind in kinds}
    for number in range(num_videos):
        data = ProceduralVideos(num_videos=1, first_video=number, num_frames=num_frames, num_workers=0)
        (clip,) = ClipLoader(data.plan(data.videos()), num_workers=0)
        shared.remembered.clear()
        for kind, blocks in kinds.items():
            for block, features in blocks.items():
                labels_THW = VideoSegmenter(shared, KNNSceneContext(), features=features)(
                    clip.frames_THW3,
                    generator=clip_generator(0, data.name, clip.video, 0),
                    first_labels_HW=PROCEDURAL.class_ids(clip.labels_THW[0]),
                )
                evaluator = VideoEvaluator(clip.video, PROCEDURAL, FirstFrameNaming())
                evaluator.update(labels_THW, clip.labels_THW, clip.labelled_T)
                confusion = evaluator.finish().confusion
                scores[kind].setdefault(str(block), []).append(segmentation_scores(confusion).miou)
    return {kind: {b: float(np.mean(values)) for b, values in blocks.items()} for kind, blocks in scores.items()}


def draw_bars(scores: dict[str, dict[str, float]], title: str) -> Image.Image:
    """One group of bars a block; mean IoU in per cent from 0 upwards."""
    width, height, left, bottom, top = 1000, 440, 70, 370, 110
    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    colors = dict(zip(scores, ((30, 100, 200), (240, 150, 40)), strict=True))
    highest = max(value for blocks in scores.values() for value in blocks.values())
    limit = 10 * int(10 * highest + 1)
    pen.text((8, 6), title, fill="black", font=font)
    for j, (kind, color) in enumerate(colors.items()):
        pen.rectangle((left + 240 * j, 44, left + 240 * j + 16, 60), fill=color)
        pen.text((left + 240 * j + 26, 52), kind, fill="black", font=font, anchor="lm")
    for value in range(0, limit + 1, 10):
        y = bottom - value / limit * (bottom - top)
        pen.line((left, y, width - 10, y), fill=(215, 215, 215))
        pen.text((left - 8, y), str(value), fill="black", font=font, anchor="rm")
    pen.text((8, top - 16), "mIoU %", fill="black", font=font, anchor="lb")
    pen.text(((left + width) / 2, height - 4), "output block", fill="black", font=font, anchor="mb")
    blocks = sorted({int(block) for values in scores.values() for block in values})
    step = (width - 10 - left) / len(blocks)
    for i, block in enumerate(blocks):
        x = left + i * step
        pen.text((x + step / 2, bottom + 8), str(block), fill="black", font=font, anchor="mt")
        for j, kind in enumerate(scores):
            value = scores[kind].get(str(block))
            if value is not None:
                x0, bar = x + step * (0.12 + 0.38 * j), step * 0.36
                y = bottom - 100 * value / limit * (bottom - top)
                pen.rectangle((x0, y, x0 + bar, bottom), fill=colors[kind])
                pen.text((x0 + bar / 2, y - 2), f"{100 * value:.0f}", fill="black", font=font, anchor="mb")
    return sheet


def main() -> None:
    """Draw what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", help="video file or folder of images in place of a generated video")
    parser.add_argument("--video", type=int, default=0, help="number of the generated test video (0)")
    parser.add_argument("--length", type=int, default=14, help="frames (14)")
    parser.add_argument("--frames", type=int, nargs=2, default=[0, 9], help="the two frames that are shown (0 9)")
    parser.add_argument("--row", type=float, default=0.65, help="height of the x-t slice, 0 top to 1 bottom (0.65)")
    parser.add_argument("--sd", help="Stable Diffusion weights in place of the embedded ones")
    parser.add_argument("--svd", help="weights of a video model; without it, its figures are left out")
    parser.add_argument("--svd-name", default="Stable Video Diffusion", help="what the titles call it")
    parser.add_argument("--size", type=int, nargs=2, help="height and width at which the models see the frames")
    parser.add_argument("--bars", type=int, default=0, metavar="N", help="also draw mIoU by block over N videos")
    parser.add_argument("--bars-only", action="store_true", help="leave the other figures as they are")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the figures")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    image_model = Embedded() if args.sd is None else StableDiffusion(args.sd)
    models: list[tuple[UNetBackbone, str, str, list[Layer]]] = [
        (image_model, "sd", "embedded image model" if args.sd is None else "Stable Diffusion", ["self"])
    ]
    if args.svd:
        models.append((StableVideoDiffusion(args.svd), "svd", args.svd_name, ["self", "temporal_self"]))
    clip = read_clip(args)
    for model, short, name, layers in [] if args.bars_only else models:
        model.load()
        features = read_features(model, clip, layers, args.size and tuple(args.size))
        for layer in layers:
            kind = "temporal" if layer == "temporal_self" else "spatial"
            of_layer = {block: tensor for (of, block), tensor in features.items() if of == layer}
            title = f"{name}, {kind} self-attention q (last step, first three principal components)"
            sheet = draw_blocks(title, clip, of_layer, args.frames, args.row)
            sheet.save(args.output / f"{short}_{kind}.png", optimize=True)
    if args.bars:
        image_model.load()
        scores = block_scores(image_model, args.bars, args.length)
        (args.output / "blocks.json").write_text(json.dumps(scores, indent=1) + "\n")
        title = f"{models[0][2]}: mIoU by block, {args.bars} generated videos of {args.length} frames"
        draw_bars(scores, title).save(args.output / "blocks.png", optimize=True)


if __name__ == "__main__":
    main()
