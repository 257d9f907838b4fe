"""Every approximation of the method, held to its agreement with the exact one; and the parts that they are made of."""

import numpy as np
import pytest
import torch

from zsvss.backbones.embedded import Embedded
from zsvss.bench import modes
from zsvss.data.scenes import Scene
from zsvss.segmenter import VideoSegmenter, near_identical
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.latent_difference import LatentDifferences
from zsvss.stages.modulation import MaskedModulation
from zsvss.stages.refinement import CorrespondenceRefinement
from zsvss.stages.sign_codes import SignCodedModulation, decoded_labels, sign_codes
from zsvss.stages.upsampling import GuidedUpsampling, SoftUpsampling

NUM_FRAMES = 3


@pytest.fixture(scope="module")
def frames_THW3():
    scene = Scene(100, num_frames=NUM_FRAMES, height=64, width=96)
    return torch.from_numpy(np.stack([scene.render(number)[0] for number in range(NUM_FRAMES)]))


@pytest.fixture(scope="module")
def backbone():
    embedded = Embedded()
    embedded.load()
    return embedded


def segmented(backbone, frames_THW3, modulation, first_labels_HW=None, **settings):
    segmenter = VideoSegmenter(
        backbone, KNNSceneContext(num_clusters=5), CorrespondenceRefinement(), modulation, **settings
    )
    return segmenter(frames_THW3, first_labels_HW=first_labels_HW)


@pytest.fixture(scope="module")
def exact_THW(backbone, frames_THW3):
    return segmented(backbone, frames_THW3, MaskedModulation())


# Measured 0.999, 0.997, 0.941, 0.883, 0.944, 0.928, 0.841 in this order; other processors round otherwise.
@pytest.mark.parametrize(
    ("modulation", "agreement"),
    [
        (MaskedModulation(guided=False), 0.99),
        (MaskedModulation(num_steps=2), 0.98),
        (MaskedModulation(num_steps=1), 0.90),
        (LatentDifferences(), 0.85),
        (SignCodedModulation(), 0.90),
        (SoftUpsampling(), 0.90),
        (GuidedUpsampling(), 0.80),
    ],
    ids=["unguided", "two steps", "one step", "latents", "sign codes", "soft", "guided filter"],
)
def test_agreement_with_exact(backbone, frames_THW3, exact_THW, modulation, agreement):
    labels_THW = segmented(backbone, frames_THW3, modulation)
    assert len(exact_THW.unique()) == 5
    assert (labels_THW == exact_THW).double().mean() >= agreement


def test_agreement_without_guidance(frames_THW3, exact_THW):
    unguided = Embedded(guidance=1)
    unguided.load()
    labels_THW = segmented(unguided, frames_THW3, MaskedModulation())
    assert (labels_THW == exact_THW).double().mean() >= 0.99


def test_agreement_of_the_shipped_overlay(frames_THW3, exact_THW):
    settings, modulation = modes.fast_mode()
    assert settings == {"num_steps": 12, "first_step": 11, "guidance": 1}
    assert isinstance(modulation, GuidedUpsampling)
    assert modulation.eps == 0.003
    backbone = Embedded(**settings)
    backbone.load()
    labels_THW = segmented(backbone, frames_THW3, modulation)
    assert len(labels_THW.unique()) == 5
    # Measured 0.819, clusters under their best names: another pass's features make others.
    assert modes.agreement(labels_THW, exact_THW) >= 0.77


def test_agreement_where_frames_are_reused(backbone, frames_THW3):
    still_THW3 = frames_THW3[[0, 0, 1]]
    still_THW3[1] ^= 1  # another frame, by one grey level
    classes_HW = torch.from_numpy(Scene(100, num_frames=1, height=64, width=96).render(0)[1]).long()
    every, reused = (
        segmented(backbone, still_THW3, SoftUpsampling(), classes_HW, reuse_below=levels) for levels in (None, 2.0)
    )
    assert torch.equal(reused[0], reused[1])
    assert (every == reused).double().mean() >= 0.95


def test_guidance_of_one_runs_the_conditional_half_alone(backbone, frames_THW3):
    images_T3HW = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = backbone.sample_noise(2, 64, 64, torch.Generator().manual_seed(1))
    keys = VideoSegmenter(backbone).features.keys(backbone)
    recordings = []
    for guidance in (1, 1 + 1e-6):
        made = Embedded(guidance=guidance)
        made.load()
        noised = made.add_noise(made.encode(images_T3HW, noise), noise)
        recordings.append(made.record(noised, made.condition(images_T3HW, noise), keys))
    alone, both = recordings
    for key in keys:
        assert alone.tensors[key].shape[0] == 1
        assert both.tensors[key].shape[0] == 2
        torch.testing.assert_close(alone.tensors[key][-1], both.tensors[key][-1], rtol=0, atol=1e-4)


def test_a_feature_pass_that_ends_early_records_the_same(backbone):
    images_T3HW = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = backbone.sample_noise(2, 64, 64, torch.Generator().manual_seed(1))
    noised, conditioning = (
        backbone.add_noise(backbone.encode(images_T3HW, noise), noise),
        backbone.condition(None, noise),
    )
    keys = VideoSegmenter(backbone).features.keys(backbone)
    whole, short = (backbone.record(noised, conditioning, keys, for_denoising=flag) for flag in (True, False))
    assert set(short.tensors) == set(keys) < set(whole.tensors)
    assert backbone.steps[-1] in whole.latents
    assert backbone.steps[-1] not in short.latents
    assert all(torch.equal(short.tensors[key], whole.tensors[key]) for key in keys)
    again = backbone.record(noised, conditioning, keys)
    assert torch.equal(again.latents[backbone.steps[-1]], whole.latents[backbone.steps[-1]])


def test_near_identical_frames_are_compared_with_the_last_kept_one():
    levels_T = torch.tensor([0.0, 1.0, 2.0, 3.0, 9.0, 8.5])
    images_T3HW = (levels_T / 127.5)[:, None, None, None].expand(-1, 3, 2, 2)
    kept, places = near_identical(images_T3HW, 2.5)
    assert kept.tolist() == [0, 3, 4]
    assert places.tolist() == [0, 0, 0, 1, 2, 2]


@pytest.mark.parametrize("num_labels", [1, 2, 3, 8, 9, 20])
def test_sign_codes_differ_in_the_least_number_of_positions(num_labels):
    codes_PC = sign_codes(num_labels)
    assert len(codes_PC.unique(dim=0)) == num_labels
    assert codes_PC.shape[1] == 1 + max(1, (num_labels - 1).bit_length())


def test_sign_codes_are_read_back_from_the_directions_of_differences():
    labels_Thw = torch.tensor([[[0, 0, 3, 3], [7, 7, 9, 9]], [[9, 9, 9, 9], [9, 9, 9, 9]]])
    present_P, codes_PC = labels_Thw.unique(), sign_codes(4)
    truth_THW = labels_Thw.repeat_interleave(8, 1).repeat_interleave(8, 2)
    reference_T3HW = torch.randn(2, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    signs_CTHW = codes_PC[torch.searchsorted(present_P, truth_THW)].movedim(-1, 0)
    decoded = decoded_labels(signs_CTHW[:, :, None] * reference_T3HW, codes_PC, present_P, labels_Thw)
    inside = slice(2, 6)  # of the cells: the blur reaches two pixels
    cells = decoded.unflatten(1, (2, 8)).unflatten(3, (4, 8))[:, :, inside, :, inside]
    assert torch.equal(cells, labels_Thw[:, :, None, :, None].expand_as(cells))


@pytest.mark.parametrize("value", [0, -1])
def test_a_modulated_pass_takes_a_step_at_least(value):
    with pytest.raises(ValueError, match=f"modulation.num_steps = {value}"):
        MaskedModulation(num_steps=value)
