"""The networks on the published code's own noise and conditioning give the published code's numbers.

A set that is whole has those of its first clip compared by the end-to-end test, which has computed them.
"""

import pytest
import torch
from deviations import Deviations
from golden import ABSENT, golden_sets
from stored_pass import compare_images, compare_pass, pass_keys
from torch.nn import functional

from zsvss.segmenter import VideoSegmenter

SETS = golden_sets()
CLIPS = [(golden, clip) for golden in SETS for clip in golden.clips_with("latents") if clip or not golden.is_whole]

pytestmark = pytest.mark.skipif(not SETS, reason=ABSENT)


def compare_modulated(golden, clip, backbone, recording, deviations):
    """Both signs of every label; an image model's frames are independent, so a third of them is checked."""
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
    """Latents, conditioning, x after each step, features, queries and keys, modulated latents, decoded images."""
    backbone, deviations, noise = golden.backbone(), Deviations(), golden.noise(clip)
    images_T3HW = VideoSegmenter(backbone).to_images(golden.clip_frames(clip))
    latents_Tchw = backbone.encode(images_T3HW, noise)
    noised_Tchw = backbone.add_noise(latents_Tchw, noise)
    recording = backbone.record(noised_Tchw, golden.conditioning(clip), pass_keys(golden, clip, backbone))
    compare_pass(golden, clip, backbone, images_T3HW, latents_Tchw, recording, deviations)
    compare_modulated(golden, clip, backbone, recording, deviations)
    compare_images(golden, clip, backbone, {}, deviations)
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
