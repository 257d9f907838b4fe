"""A set in the golden format, made with this package's own code, of every kind that the two shipped sets are not.

Frames of a size that is no multiple of 64, ground truth in the method, fewer label ids than clusters, another lambda,
clips of 10 frames with an overlapping second one, crops for one clip alone, and cross-attention keys stored for one
sample a guidance half while queries are stored for four.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from toy_backbone import striped_video

from zsvss.backbones.base import Conditioning, FeatureKey, Recording
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.segmenter import VideoSegmenter
from zsvss.stages import context as context_module
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.difference import difference_map
from zsvss.stages.kmeans import KMeans, kmeans
from zsvss.stages.modulation import LargestDifference, MaskedModulation, resize_images
from zsvss.stages.refinement import CorrespondenceRefinement
from zsvss.stages.trace import Trace

NUM_FRAMES, CLIP_LENGTH, NUM_CLUSTERS, STRENGTH = 16, 10, 5, 5.0
SIZE = (100, 150)  # the network sees 64x128
CLASSES = (1, 2, 255)  # the last is void, an ordinary label of the published code
_CROP = (8, 16, 48, 96)
_SAMPLES = (0, 7, 10, 17)  # of both guidance halves of ten frames
_PRIORS = {"unfiltered": None, "filtered_0p7": 0.7}


def make(folder: Path, weights: Path) -> Path:
    """Write the set; returns its folder.

    Args:
        folder: to write into.
        weights: diffusers folder of Stable Diffusion's layout with ``context.safetensors``.
    """
    folder.mkdir(parents=True)
    for part in ("unet", "vae"):
        shutil.copytree(weights / part, folder / "weights" / part)
    frames_THW3, bands_THW = striped_video(NUM_FRAMES, *SIZE)
    truth_HW = torch.tensor(CLASSES)[bands_THW[0].clamp(max=2)].to(torch.uint8)
    settings = {"num_frames": CLIP_LENGTH, "num_masks": NUM_CLUSTERS, "lam": STRENGTH, "use_gt": True, "seed": 0}
    (folder / "meta.json").write_text(json.dumps({"settings": settings}))
    names = np.array([f"{number:05d}" for number in range(NUM_FRAMES)])
    _write(folder / "frames.npz", frames=frames_THW3, names=names, gt_mask_frame0=truth_HW)
    context = load_file(weights / "context.safetensors")
    uncond = context.get("uncond", torch.zeros_like(context["cond"]))
    _write(folder / "context.npz", c=context["cond"], uc=uncond)

    backbone = StableDiffusion.from_pretrained(str(weights))
    _write(folder / "schedule.npz", sigmas=torch.tensor(backbone.sigmas), timestep_of_step=np.array(backbone.timesteps))
    conditioning = Conditioning(torch.cat([uncond, context["cond"]]))
    segmenter = VideoSegmenter(
        backbone,
        KNNSceneContext(NUM_CLUSTERS),
        CorrespondenceRefinement(skip_first_hop=True, one_sided_displacement=True, truncate_start_points=True),
        MaskedModulation(STRENGTH, "published"),
    )
    for clip, start in enumerate((0, NUM_FRAMES - CLIP_LENGTH)):
        clip_frames_THW3 = frames_THW3[start : start + CLIP_LENGTH]
        _write_clip(folder, clip, segmenter, clip_frames_THW3, conditioning, truth_HW)
    return folder


def _write_clip(
    folder: Path, clip: int, segmenter: VideoSegmenter, frames_THW3: Tensor, conditioning: Conditioning, truth: Tensor
) -> None:
    found: list[KMeans] = []

    def remembered(*arguments: Any, **options: Any) -> KMeans:
        found.append(kmeans(*arguments, **options))
        return found[-1]

    memory, generator = segmenter.memory, torch.Generator().manual_seed(clip)
    with patch.object(context_module, "kmeans", remembered):
        trace = Trace()
        labels_THW = segmenter(
            frames_THW3, generator=generator, conditioning=conditioning, first_labels_HW=truth, trace=trace
        ).labels_THW
    prefix = str(folder / f"batch{clip}")
    recording, grid = trace.recording, trace.grid
    first, last = segmenter.backbone.steps[0], segmenter.backbone.steps[-1]
    _write(
        f"{prefix}_latents.npz",
        posterior_eps=trace.noise.posterior_Tchw,
        add_noise_eps=trace.noise.diffusion_Tchw,
        latent=trace.latents_Tcuv,
        **{f"feature_pass_x_in_step{first}": recording.noised_Tchw},
        **{f"xt_{step}": x if step == last else x.half() for step, x in recording.latents.items()},
    )
    labels = {
        "unique_labels": trace.label_set_L,
        "knn_labels": trace.coarse_Tn.unflatten(1, grid),
        "corrected": trace.refined_Tn.unflatten(1, grid),
        "trj_h": (trace.trajectories_TP // grid[1]).short(),
        "trj_w": (trace.trajectories_TP % grid[1]).short(),
    }
    if memory is None:
        labels |= {
            "kmeans_centers": found[0].centers_Kc,
            "kmeans_labels": found[0].labels_N.view(-1, *grid).int(),
            "kmeans_inertia": np.float64(found[0].inertia),
        }
    else:
        labels["knn_fit_labels"] = memory.labels_N
    _write(f"{prefix}_labels.npz", **labels)
    _write_attention(folder, prefix, segmenter.backbone, recording, with_crops=clip == 0)
    _write_pixels(prefix, segmenter.backbone, trace, labels_THW, with_crops=clip == 0)


def _write_attention(
    folder: Path, prefix: str, backbone: StableDiffusion, recording: Recording, *, with_crops: bool
) -> None:
    step = backbone.steps[-1]
    queries = {block: FeatureKey(step, block) for block in (6, 7, 8)}
    cross = {letter: FeatureKey(step, 7, "cross", name) for letter, name in (("q", "query"), ("k", "key"))}
    read = backbone.record(recording.noised_Tchw, recording.conditioning, [*queries.values(), *cross.values()])
    cond = [read.tensors[key][1] for key in queries.values()]
    _write(f"{prefix}_features_step24.npz", agg_self_q_cond=torch.stack(cond).mean(0), block7_self_q_cond=cond[1])
    if with_crops:
        crops = {
            f"ob{block}_self_attn_q_t{step}": read.tensors[key].flatten(0, 1)[list(_SAMPLES)]
            for block, key in queries.items()
        }
        crops[f"ob7_cross_attn_q_t{step}"] = read.tensors[cross["q"]].flatten(0, 1)[list(_SAMPLES)]
        crops[f"ob7_cross_attn_k_t{step}"] = read.tensors[cross["k"]][:, 0]  # of a half: all frames have the same
        halves = {name: crop.half() for name, crop in crops.items()}
        _write(folder / "qk_crops.npz", batch_index=torch.tensor(_SAMPLES), **halves)


def _write_pixels(
    prefix: str, backbone: StableDiffusion, trace: Trace, labels_THW: Tensor, *, with_crops: bool
) -> None:
    """Latents, maps and segmentations, stored under the labels' numbers 0, 1, ... although two are labels as well."""
    frame, last = 5, backbone.steps[-1]
    num_frames, size = len(labels_THW), (labels_THW.shape[1], labels_THW.shape[2])
    refined_Thw = trace.refined_Tn.unflatten(1, trace.grid)
    seg = {"labels": trace.label_set_L, "unfiltered": labels_THW.byte()}
    kinds = {"": "published", "correct_": "uint8"}
    variants = {beginning + name: kind for beginning, kind in kinds.items() for name in _PRIORS}
    elections = {
        name: LargestDifference(refined_Thw, trace.label_set_L, size, _PRIORS[name.removeprefix("correct_")])
        for name in variants
    }
    latents, maps, differences, crops = {}, {}, {}, {"frames": torch.tensor([frame]), "yx": torch.tensor(_CROP[:2])}
    window = (..., slice(_CROP[0], _CROP[0] + _CROP[2]), slice(_CROP[1], _CROP[1] + _CROP[3]))
    rows_BScuv = torch.cat(trace.modulated_latents)
    for index in range(len(trace.label_set_L)):
        frames_B, rows_B = trace.rows_of_label(index)
        images = {}
        for number, sign in enumerate("pm"):
            final_Tcuv = trace.recording.latents[last].clone()
            final_Tcuv[frames_B] = rows_BScuv[rows_B, number]
            latents[f"L{index}_{sign}_x{last}_final"] = final_Tcuv
            images[sign] = backbone.decode(final_Tcuv)
            crops[f"L{index}_{sign}"] = images[sign][[frame]][window].half()
        own = [resize_images(images[sign], size) for sign in "pm"]
        of_kind = {kind: difference_map(*own, kind) for kind in kinds.values()}
        maps[f"L{index}"] = of_kind["published"].byte()
        differences[f"L{index}_f{frame}_correct"] = of_kind["uint8"][frame].half()
        for name, kind in variants.items() if len(frames_B) else ():
            elections[name].add(frames_B, torch.full_like(frames_B, index), of_kind[kind][frames_B])
    seg |= {name: election.labels_THW.byte() for name, election in elections.items()}
    crops["feature_pass"] = backbone.decode(trace.recording.latents[last][[frame]])[window].half()
    assert num_frames == CLIP_LENGTH
    _write(f"{prefix}_modulated_latents.npz", **latents)
    _write(f"{prefix}_seg.npz", **seg)
    _write(f"{prefix}_difference_jpg_u8.npz", **maps)
    if with_crops:
        _write(f"{prefix}_difference_crops.npz", **differences)
        _write(f"{prefix}_decoded_crops_f16.npz", **crops)


def _write(path: Path | str, **arrays: Any) -> None:
    np.savez(path, **{name: np.asarray(array) for name, array in arrays.items()})
