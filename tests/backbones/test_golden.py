"""The networks on the published code's own noise and conditioning give the published code's numbers."""

import re

import pytest
import torch
from deviations import Deviations
from golden import ABSENT, GoldenSet, golden_sets
from torch.nn import functional

from zsvss.backbones.base import FeatureKey
from zsvss.segmenter import VideoSegmenter

SETS = golden_sets()
CLIPS = [(golden, clip) for golden in SETS for clip in golden.clips_with("latents")]
DECODED = [(golden, clip) for golden, clip in CLIPS if clip in golden.clips_with("decoded_crops_f16")]

pytestmark = pytest.mark.skipif(not SETS, reason=ABSENT)

LAYERS = {"": "self", "spatial_": "self", "temporal_": "temporal_self"}
PROJECTIONS = {"q": "query", "k": "key"}


def crop_keys(golden: GoldenSet, steps) -> dict[str, FeatureKey]:
    """Name of each stored crop of queries or keys -> what it is; cross-attention of either kind."""
    keys = {}
    for name in golden.arrays("qk_crops"):
        match = re.fullmatch(r"ob(\d+)_((?:spatial_|temporal_)?)(self|cross)_attn_([qk])_t(\d+)", name)
        if match and int(match[5]) in steps:
            layer = LAYERS[match[2]] if match[3] == "self" else LAYERS[match[2]].replace("self", "cross")
            keys[name] = FeatureKey(int(match[5]), int(match[1]), layer, PROJECTIONS[match[4]])
    return keys


def compare_crops(golden, recording, keys, deviations):
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


def compare_modulated(golden, clip, backbone, recording, deviations):
    """Both signs of every label; an image model's frames are independent, so a third of them is checked.

    Those of a video model's whole first clip are compared by the end-to-end test, which has computed them.
    """
    if backbone.couples_frames and clip == 0 and golden.is_whole:
        return
    stored, labels = golden.clip(clip, "modulated_latents"), golden.clip(clip, "labels")
    label_set_L = labels["unique_labels"]
    for number, label in enumerate(label_set_L.tolist() if stored else ()):
        masks_Thw = (labels["corrected"] == label).float()
        frames = torch.arange(len(masks_Thw))
        if not backbone.couples_frames:
            present = frames[masks_Thw.flatten(1).any(1)]
            frames = present[number % 3 :: 3] if len(present) > 3 else present
        if not len(frames):
            continue
        frames_B = frames.repeat(2)
        offset_Bn = golden.settings["lam"] * masks_Thw[frames].flatten(1)
        x = recording.noised_Tchw[frames_B]
        inside = functional.interpolate(masks_Thw[frames_B][:, None], x.shape[-2:])
        for step in backbone.steps:
            offset = torch.cat([offset_Bn, -offset_Bn]) if step == backbone.steps[0] else None
            x = backbone.denoise(x, step, recording, frames_B, offset)
            kinds = (f"x{step}_preblend", f"x{step}_final")
            deviations.add_step(stored, label_set_L, number, kinds, x.unflatten(0, (2, -1)), frames)
            if step in backbone.blended_steps:
                x = x * inside + recording.latents[step][frames_B] * (1 - inside)
                kinds = (f"x{step}_blended", f"x{step}_final_blended")
                deviations.add_step(stored, label_set_L, number, kinds, x.unflatten(0, (2, -1)), frames)


@pytest.mark.parametrize(("golden", "clip"), CLIPS, ids=str)
@torch.inference_mode()
def test_denoising_follows_the_published_code(golden, clip):
    """Latents, conditioning, x after each step, features, queries and keys, and modulated latents."""
    backbone, deviations = golden.backbone(), Deviations()
    latents, features = golden.clip(clip, "latents"), golden.clip(clip, "features_step24")
    noise, conditioning = golden.noise(clip), golden.conditioning(clip)

    images_T3HW = VideoSegmenter(backbone).to_images(golden.clip_frames(clip))
    latents_Tchw = backbone.encode(images_T3HW, noise)
    noised_Tchw = backbone.add_noise(latents_Tchw, noise)
    deviations.add("latent", latents_Tchw, latents["latent"])
    deviations.add("noised", noised_Tchw, latents[f"feature_pass_x_in_step{backbone.steps[0]}"])
    if golden.is_video:
        ours = backbone.condition(images_T3HW, noise)
        deviations.add("conditioning vector", ours.vector_Gc, conditioning.vector_Gc)
        deviations.add("conditioning frame", ours.concat_Gchw, conditioning.concat_Gchw)

    crops = crop_keys(golden, backbone.steps) if clip == golden.clips[0] else {}
    blocks = [FeatureKey(backbone.steps[-1], block) for block in (6, 7, 8)]
    recording = backbone.record(noised_Tchw, conditioning, [*crops.values(), *blocks])
    for step in backbone.steps:
        deviations.add(f"xt_{step}", recording.latents[step], latents[f"xt_{step}"])
    if features:
        conditional = [recording.tensors[key][1] for key in blocks]
        deviations.add("aggregated queries", torch.stack(conditional).mean(0), features["agg_self_q_cond"])
        deviations.add("queries of block 7", conditional[1], features["block7_self_q_cond"])
    compare_crops(golden, recording, crops, deviations)
    compare_modulated(golden, clip, backbone, recording, deviations)
    deviations.check()


@pytest.mark.parametrize(("golden", "clip"), DECODED, ids=str)
@torch.inference_mode()
def test_decoded_images_are_the_published_ones(golden, clip):
    backbone, deviations = golden.backbone(), Deviations()
    last, modulated = backbone.steps[-1], golden.clip(clip, "modulated_latents")
    crops = golden.clip(clip, "decoded_crops_f16")
    frames = crops["frames"]
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
        images = backbone.decode(latents[frames])
        height, width = stored.shape[-2:]
        deviations.add(name, images[..., top : top + height, left : left + width], stored)
    deviations.check()


@pytest.mark.parametrize("golden", SETS, ids=str)
def test_schedule_is_the_published_one(golden):
    backbone, schedule = golden.backbone(), golden.arrays("schedule")
    # The published code computes them in float32.
    torch.testing.assert_close(torch.tensor(backbone.sigmas), schedule["sigmas"], rtol=1e-5, atol=0)
    if "timestep_of_step" in schedule:
        assert backbone.timesteps == schedule["timestep_of_step"].tolist()
    if "cfg_scale_per_frame" in schedule:
        scales = schedule["cfg_scale_per_frame"]
        torch.testing.assert_close(backbone.guidance_scale(torch.arange(len(scales)), len(scales)).flatten(), scales)
