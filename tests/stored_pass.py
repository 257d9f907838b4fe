"""The published code's feature pass and decoded images, compared with ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from deviations import Deviations
from golden import GoldenSet
from torch import Tensor

from zsvss.backbones.base import Backbone, FeatureKey, Recording

_LAYERS = {"": "self", "spatial_": "self", "temporal_": "temporal_self"}
_PROJECTIONS = {"q": "query", "k": "key"}


def pass_keys(golden: GoldenSet, clip: int, backbone: Backbone) -> list[FeatureKey]:
    """What the pass must record to be compared."""
    return [*_crop_keys(golden, clip, backbone.steps).values(), *_block_keys(backbone)]


def compare_pass(
    golden: GoldenSet,
    clip: int,
    backbone: Backbone,
    images_T3HW: Tensor,
    latents_Tchw: Tensor,
    recording: Recording,
    deviations: Deviations,
) -> None:
    """Latents, conditioning, x after each step, features, queries and keys."""
    latents, features = golden.clip(clip, "latents"), golden.clip(clip, "features_step24")
    deviations.add("latent", latents_Tchw, latents["latent"])
    deviations.add("noised", recording.noised_Tchw, latents[f"feature_pass_x_in_step{backbone.steps[0]}"])
    if golden.is_video:
        ours, conditioning = backbone.condition(images_T3HW, golden.noise(clip)), golden.conditioning(clip)
        deviations.add("conditioning vector", ours.vector_Gc, conditioning.vector_Gc)
        deviations.add("conditioning frame", ours.concat_Gchw, conditioning.concat_Gchw)
    for step in backbone.steps:
        deviations.add(f"xt_{step}", recording.latents[step], latents[f"xt_{step}"])
    if features:
        conditional = [recording.tensors[key][1] for key in _block_keys(backbone)]
        deviations.add("aggregated queries", torch.stack(conditional).mean(0), features["agg_self_q_cond"])
        deviations.add("queries of block 7", conditional[1], features["block7_self_q_cond"])
    _compare_crops(golden, recording, _crop_keys(golden, clip, backbone.steps), deviations)


def compare_images(
    golden: GoldenSet, clip: int, backbone: Backbone, decoded: Mapping[str, Tensor], deviations: Deviations
) -> None:
    """Images of stored latents on the stored crops; those in ``decoded``, name -> [F, 3, H, W], are there already."""
    last, modulated = backbone.steps[-1], golden.clip(clip, "modulated_latents")
    crops = golden.clip(clip, "decoded_crops_f16")
    top, left = crops["yx"].tolist() if "yx" in crops else (0, 0)
    for name, stored in crops.items():
        if stored.ndim != 4:
            continue
        finals = [modulated.get(f"{name}_x{last}_{kind}") for kind in ("final_blended", "final")]
        latents = next((final for final in finals if final is not None), None)
        if name == "feature_pass":
            latents = golden.clip(clip, "latents")[f"xt_{last}"]
        if latents is None:
            continue  # the set stores the images of this clip without their latents
        images = decoded[name] if name in decoded else backbone.decode(latents[crops["frames"]])
        height, width = stored.shape[-2:]
        deviations.add(name, images[..., top : top + height, left : left + width], stored)


def _block_keys(backbone: Backbone) -> list[FeatureKey]:
    return [FeatureKey(backbone.steps[-1], block) for block in (6, 7, 8)]


def _crop_keys(golden: GoldenSet, clip: int, steps: Sequence[int]) -> dict[str, FeatureKey]:
    """Name of each stored crop of queries or keys -> what it is; cross-attention of either kind; of the first clip."""
    keys: dict[str, FeatureKey] = {}
    for name in golden.arrays("qk_crops") if clip == golden.clips[0] else ():
        match = re.fullmatch(r"ob(\d+)_((?:spatial_|temporal_)?)(self|cross)_attn_([qk])_t(\d+)", name)
        if match and int(match[5]) in steps:
            layer = _LAYERS[match[2]] if match[3] == "self" else _LAYERS[match[2]].replace("self", "cross")
            keys[name] = FeatureKey(int(match[5]), int(match[1]), layer, _PROJECTIONS[match[4]])
    return keys


def _compare_crops(
    golden: GoldenSet, recording: Recording, keys: Mapping[str, FeatureKey], deviations: Deviations
) -> None:
    crops = golden.arrays("qk_crops")
    for name, key in keys.items():
        tensor_GTnc = recording.tensors[key]
        if key.layer.startswith("temporal"):
            ours = tensor_GTnc.transpose(1, 2).flatten(0, 1)[crops["temporal_batch_index"]]
        else:
            index = crops["spatial_batch_index" if golden.is_video else "batch_index"]
            # Keys of the context are the same for all frames: a set may store those of one sample a guidance half.
            of_halves = key.layer == "cross" and key.projection == "key" and len(crops[name]) < len(index)
            ours = tensor_GTnc[:, 0] if of_halves else tensor_GTnc.flatten(0, 1)[index]
        assert ours.shape == crops[name].shape, name
        deviations.add(name, ours, crops[name])
