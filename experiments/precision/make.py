"""What half precision changes, and where: `python experiments/precision/make.py [--camvid data/camvid]`.

Half precision is emulated: weights, and what goes into and out of every layer, are rounded to it, while sums stay in
float32, as they do on a GPU. That runs on a CPU at float32's speed, and any part of the networks can be left out.
Printed as Markdown: the error of the features, and the share of tokens and pixels labelled as in float32.

Shape legend: T frames of a clip, n tokens, c channels, K clusters.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from zsvss.backbones.embedded import Embedded
from zsvss.commands.allocator import keep_freed_memory
from zsvss.data.camvid import CamVid
from zsvss.data.datamodule import VideoDataModule
from zsvss.data.procedural import ProceduralVideos
from zsvss.module import clip_generator
from zsvss.segmenter import VideoSegmenter
from zsvss.stages import context
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.kmeans import KMeans, kmeans
from zsvss.stages.modulation import MaskedModulation
from zsvss.stages.refinement import CorrespondenceRefinement
from zsvss.stages.trace import Trace

_MATRIX_PRODUCTS = (nn.Conv2d, nn.Linear)


@dataclass(frozen=True)
class Variant:
    """One row of the table: which parts compute in which precision.

    Attributes:
        name: as it is printed.
        dtype: of the parts.
        parts: attributes of the backbone.
        mixed: round convolutions and linear layers alone, as autocast does.
    """

    name: str
    dtype: torch.dtype = torch.float32
    parts: Sequence[str] = ()
    mixed: bool = False


_ENCODER, _DECODER, _UNET = "vae.encoder", "vae.decoder", "unet"
VARIANTS = [
    Variant("float16 in the encoder alone", torch.float16, (_ENCODER,)),
    Variant("float16 in the U-Net alone", torch.float16, (_UNET,)),
    Variant("float16 in the decoder alone", torch.float16, (_DECODER,)),
    Variant("float16 everywhere", torch.float16, (_ENCODER, _UNET, _DECODER)),
    Variant("`16-true`: all but the encoder", torch.float16, (_UNET, _DECODER)),
    Variant("`16-mixed`: all but the encoder", torch.float16, (_UNET, _DECODER), mixed=True),
    Variant("`bf16-true`", torch.bfloat16, (_ENCODER, _UNET, _DECODER)),
    Variant("`bf16-true`, encoder in float32", torch.bfloat16, (_UNET, _DECODER)),
    Variant("`bf16-mixed`", torch.bfloat16, (_ENCODER, _UNET, _DECODER), mixed=True),
]


class Labelled(NamedTuple):
    """What came of a data set: features and labels of each clip, K-means of each video."""

    features: list[Tensor]
    tokens: list[Tensor]
    pixels: list[Tensor]
    clusters: list[KMeans]


def emulate(network: nn.Module, dtype: torch.dtype, *, mixed: bool) -> None:
    """Round weights, inputs and outputs of every layer."""

    def rounded(value: Any) -> Any:
        is_number = isinstance(value, Tensor) and value.is_floating_point()
        return value.to(dtype).float() if is_number else value

    for layer in network.modules():
        if next(layer.children(), None) is None and (not mixed or isinstance(layer, _MATRIX_PRODUCTS)):
            for parameter in layer.parameters(recurse=False):
                parameter.data = rounded(parameter.data)
            layer.register_forward_pre_hook(lambda _layer, inputs: tuple(map(rounded, inputs)))
            layer.register_forward_hook(lambda _layer, _inputs, output: rounded(output))


def label(
    variant: Variant, data: VideoDataModule, options: argparse.Namespace, seed: int = 0, like: Labelled | None = None
) -> Labelled:
    """Label all clips.

    Args:
        variant: of the networks.
        data: the clips.
        options: of the command line.
        seed: of noise and clustering.
        like: K-means starts from these centres, once, in place of random ones.
    """
    backbone = Embedded()
    backbone.load()
    for part in variant.parts:
        emulate(backbone.get_submodule(part), variant.dtype, mixed=variant.mixed)
    segmenter = VideoSegmenter(
        backbone,
        KNNSceneContext(),
        CorrespondenceRefinement(),
        None if options.tokens_only else MaskedModulation(),
        input_size=options.size and tuple(options.size),
    )
    labelled = Labelled([], [], [], [])

    def remembered(points_Nc: Tensor, num_clusters: int, **settings: Any) -> KMeans:
        if like is not None:
            settings = {"initial_centers_Kc": like.clusters[len(labelled.clusters)].centers_Kc}
        labelled.clusters.append(kmeans(points_Nc, num_clusters, **settings))
        return labelled.clusters[-1]

    with patch.object(context, "kmeans", remembered):
        for clip in data.test_dataloader():
            if clip.is_first:
                segmenter.reset()
            generator = clip_generator(seed, data.name, clip.video, clip.index)
            trace = Trace()
            segmented = segmenter(clip.frames_THW3, generator=generator, trace=trace)
            assert trace.features_Tnc is not None
            assert trace.refined_Tn is not None
            first_id = len(labelled.clusters) * segmenter.context.num_clusters  # clusters are the video's own
            labelled.features.append(trace.features_Tnc)
            labelled.tokens.append(trace.refined_Tn + first_id)
            labelled.pixels.append(segmented.labels_THW + first_id)
    return labelled


def agreement(found: list[Tensor], expected: list[Tensor]) -> float:
    """Share of equal labels, after the one-to-one renaming of clusters that makes it largest."""
    ours, theirs = (torch.cat([labels.flatten() for labels in part]) for part in (found, expected))
    num_labels = int(max(ours.max(), theirs.max())) + 1
    counts = torch.bincount(ours * num_labels + theirs, minlength=num_labels**2).view(num_labels, num_labels).numpy()
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return float(counts[rows, columns].sum() / counts.sum())


def row(name: str, own: Labelled, same: Labelled | None, reference: Labelled) -> str:
    """A variant's row: with K-means of its own, and from the reference's centres."""
    pairs = zip(own.features, reference.features, strict=True)
    error = sum(float((ours - theirs).norm() / theirs.norm()) for ours, theirs in pairs) / len(own.features)
    pairs_of_clusters = zip(own.clusters, reference.clusters, strict=True)
    inertia = sum(ours.inertia / theirs.inertia - 1 for ours, theirs in pairs_of_clusters) / len(own.clusters)
    shares = [f"{100 * agreement(own.tokens, reference.tokens):.1f} %", f"{100 * inertia:+.2f} %"]
    if same is None:
        shares += ["–", "–"]
    else:
        shares += [
            f"{100 * agreement(getattr(same, part), getattr(reference, part)):.2f} %" for part in ("tokens", "pixels")
        ]
    return f"| {name} | {error:.1e} | {' | '.join(shares)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, help="folder of CamVid; generated videos if left out")
    parser.add_argument("--frames", type=int, default=14, help="of each video")
    parser.add_argument("--videos", type=int, default=2, help="generated ones")
    parser.add_argument("--size", type=int, nargs=2, help="height and width at which the backbone sees the frames")
    parser.add_argument(
        "--tokens-only", action="store_true", help="leave out masked modulation, nearly all of the time"
    )
    options = parser.parse_args()
    keep_freed_memory()
    data: VideoDataModule
    if options.camvid:
        data = CamVid(options.camvid, limit_frames=options.frames, num_workers=0)
    else:
        data = ProceduralVideos(num_videos=options.videos, num_frames=options.frames, num_workers=0)
    reference = label(Variant("float32"), data, options)
    columns = "error of features | tokens, own K-means | its objective | tokens, same start | pixels, same start"
    print(f"| precision | {columns} |")
    print("|---|--:|--:|--:|--:|--:|")
    tokens_only = argparse.Namespace(**{**vars(options), "tokens_only": True})
    other = label(Variant("float32"), data, tokens_only, seed=1)
    print(row("float32, other random numbers", other, None, reference), flush=True)
    for variant in VARIANTS:
        own = label(variant, data, tokens_only)
        print(row(variant.name, own, label(variant, data, options, like=reference), reference), flush=True)


if __name__ == "__main__":
    main()
