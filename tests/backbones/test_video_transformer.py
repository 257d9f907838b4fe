"""The coarser time grid of video transformers: frames that share a latent, interpolation, clips of any length."""

import pytest
import tiny_models
import torch

from zsvss.backbones.base import FeatureKey
from zsvss.backbones.cogvideox import CogVideoX
from zsvss.backbones.wan import Wan
from zsvss.stages.features import ColorPositionFeatures, FeaturePass, normalize
from zsvss.stages.refinement import CorrespondenceRefinement


@pytest.fixture(scope="module")
def wan(settings_of):
    return Wan.from_pretrained(**settings_of[Wan])


@pytest.fixture(scope="module")
def cogvideox(settings_of):
    return CogVideoX.from_pretrained(**settings_of[CogVideoX])


def test_the_first_frame_is_alone_and_four_share_a_latent(wan, cogvideox):
    assert wan.groups(7).tolist() == [0, 1, 1, 1, 1, 2, 2]
    assert [wan.num_latent_frames(t) for t in (1, 2, 5, 6, 9, 14)] == [1, 2, 2, 3, 3, 5]
    assert [cogvideox.num_latent_frames(t) for t in (1, 2, 9, 10, 17)] == [1, 3, 3, 5, 5]  # an odd number


def test_means_of_groups_repeat_the_last_frame(wan):
    frames = torch.arange(7.0)[None, :, None]
    assert wan.collapsed(frames)[0, :, 0].tolist() == [0, 2.5, (5 + 6 + 6 + 6) / 4]
    assert wan.padded(frames)[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 6, 6]


def test_features_are_interpolated_between_the_middles_of_groups(wan):
    """What grows evenly over time does so again, but for the half group at the end."""
    middles = torch.tensor([0, 2.5, 6.5])[:, None, None]
    found = wan.over_time(middles, 9)[:, 0, 0]
    torch.testing.assert_close(found, torch.tensor([0, 1, 2, 3, 4, 5, 6, 6.5, 6.5]))


@pytest.mark.parametrize("num_frames", [1, 4, 6])
@torch.inference_mode()
def test_clips_that_do_not_fit_are_cut_again(wan, cogvideox, num_frames):
    """Two clips of any length come back as so many frames, and each as if it were alone."""
    for backbone in (wan, cogvideox):
        images = torch.rand(num_frames, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
        noise = backbone.sample_noise(num_frames, 32, 48, torch.Generator().manual_seed(1))
        latents = backbone.encode(images, noise)
        assert latents.shape == (num_frames, 4, 4, 6)
        assert torch.equal(latents[-1], backbone.shared(latents)[-1])
        both = backbone.decode(torch.cat([latents, -latents]), num_frames)
        assert both.shape == (2 * num_frames, 3, 32, 48)
        torch.testing.assert_close(both[:num_frames], backbone.decode(latents), rtol=1e-4, atol=1e-4)


def test_a_wan_of_two_transformers_is_refused(tmp_path):
    folder = tiny_models.write_wan(tmp_path)
    tiny_models.write_index(folder, "WanPipeline", transformer_2=["diffusers", "WanTransformer3DModel"])
    with pytest.raises(ValueError, match=r"is Wan 2\.2; Wan needs Wan 2\.1, from text"):
        Wan(str(folder)).check()


def clip_of(backbone, num_frames):
    """A clip as a backbone has seen it."""
    images = torch.rand(num_frames, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = backbone.sample_noise(num_frames, 64, 64, torch.Generator().manual_seed(1))
    keys = [key for features in CorrespondenceRefinement().reads(backbone) for key in features.keys(backbone)]
    noised = backbone.add_noise(backbone.encode(images, noise), noise)
    return FeaturePass(backbone, backbone.record(noised, backbone.condition(images, noise), keys), images)


@pytest.mark.parametrize("num_frames", [1, 4, 6])
@torch.inference_mode()
def test_refinement_compares_latent_frames(wan, cogvideox, num_frames):
    """As they were recorded, not interpolated, and no more of them than have frames."""
    for backbone in (wan, cogvideox):
        seen = clip_of(backbone, num_frames)
        compared, grid = CorrespondenceRefinement().compared(seen)
        num_latents = int(backbone.groups(num_frames)[-1]) + 1
        place = backbone.places.find(backbone.places.compared[0])
        recorded = seen.recording.half(FeatureKey(backbone.steps[-1], *place))[:num_latents]
        if backbone is wan:
            assert compared.keys_Lnc is None
            torch.testing.assert_close(compared.features_Lnc, normalize(recorded, "euclidean"))
        else:
            assert torch.equal(compared.features_Lnc, recorded)
            assert compared.keys_Lnc.shape == recorded.shape
            assert not torch.equal(compared.keys_Lnc, recorded)
            assert compared.head_channels == backbone.transformer.config.attention_head_dim
        assert compared.latent_T.tolist() == backbone.groups(num_frames).tolist()
        labels = torch.randint(3, (num_frames, grid[0] * grid[1]), generator=torch.Generator().manual_seed(2))
        refined, trajectories = CorrespondenceRefinement(max_displacement=100).refine(compared, labels, grid)
        assert refined.shape == labels.shape
        assert torch.equal(trajectories, trajectories[backbone._firsts(num_frames)][backbone.groups(num_frames)])


@torch.inference_mode()
def test_other_features_are_averaged_over_the_frames_of_a_latent(wan):
    seen = clip_of(wan, 6)
    features = ColorPositionFeatures()
    of_frames, of_latents = (seen.read(features, on_latents=on_latents)[0] for on_latents in (False, True))
    expected = torch.stack([of_frames[0], of_frames[1:5].mean(0), of_frames[5]])
    torch.testing.assert_close(of_latents, expected)
