"""Soft and guided upsampling against plain definitions."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from toy_backbone import ToyBackbone

from zsvss.backbones.base import Conditioning, Recording
from zsvss.stages.modulation import LabelledClip, NearestUpsampling
from zsvss.stages.resampling import bilinear, window_mean
from zsvss.stages.upsampling import GuidedUpsampling, SoftUpsampling, guided_models, inverses

BACKBONE = ToyBackbone()
RECORDING = Recording(torch.zeros(1, 4, 8, 8), Conditioning(torch.zeros(2, 1, 1)))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def clip_of(labels_Thw, frames_THW3, features_Tnc=None, label_set=None):
    return LabelledClip(
        labels_Thw, labels_Thw.unique() if label_set is None else label_set, frames_THW3, RECORDING, features_Tnc
    )


def plain_guided_filter(image_HW, guide_HW3, radius, eps):
    """One ridge regression a window, and every pixel asks all windows that hold it."""
    height, width = image_HW.shape
    slopes, offsets = np.zeros((height, width, 3)), np.zeros((height, width))

    def window(y, x):
        return slice(max(0, y - radius), y + radius + 1), slice(max(0, x - radius), x + radius + 1)

    for y in range(height):
        for x in range(width):
            colors = guide_HW3[window(y, x)].reshape(-1, 3)
            values = image_HW[window(y, x)].ravel()
            centered = colors - colors.mean(0)
            covariance = centered.T @ centered / len(colors)
            cross = centered.T @ (values - values.mean()) / len(colors)
            slopes[y, x] = np.linalg.solve(covariance + eps * np.eye(3), cross)
            offsets[y, x] = values.mean() - slopes[y, x] @ colors.mean(0)
    filtered = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            mean_slope = slopes[window(y, x)].reshape(-1, 3).mean(0)
            filtered[y, x] = mean_slope @ guide_HW3[y, x] + offsets[window(y, x)].mean()
    return filtered


@pytest.mark.parametrize(("radius", "eps"), [(1, 1e-4), (3, 1e-2), (20, 1e-3)])
def test_the_guided_filter_is_its_plain_definition(radius, eps):
    inputs = torch.rand(2, 9, 13, generator=generator(), dtype=torch.float64)
    guide = torch.rand(3, 9, 13, generator=generator(1), dtype=torch.float64)
    slopes, offsets = guided_models(inputs, guide, radius, eps)
    filtered = (slopes * guide).sum(1) + offsets
    for image, expected in zip(filtered, inputs, strict=True):
        plain = plain_guided_filter(expected.numpy(), guide.permute(1, 2, 0).numpy(), radius, eps)
        np.testing.assert_allclose(image.numpy(), plain, rtol=0, atol=1e-9)


def test_a_window_is_cut_off_at_the_border():
    means = window_mean(torch.arange(4.0).view(1, 1, 4), 1)
    assert means.tolist() == [[[0.5, 1.0, 2.0, 2.5]]]


def test_maps_are_resized_and_averaged_as_by_pytorch():
    """OpenCV does it on a CPU; a GPU takes PyTorch's own."""
    maps = torch.randn(3, 7, 12, generator=generator())
    for size in ((30, 41), (7, 12), (9, 25)):
        expected = functional.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(bilinear(maps, size), expected, rtol=0, atol=1e-5)
    for radius in (1, 3):
        kernel = 2 * radius + 1
        expected = functional.avg_pool2d(maps, kernel, stride=1, padding=radius, count_include_pad=False)
        torch.testing.assert_close(window_mean(maps.transpose(1, 2), radius), expected.transpose(1, 2))


def test_inverses():
    roots = torch.randn(4, 5, 3, 3, generator=generator(), dtype=torch.float64)
    matrices = roots @ roots.mT + 0.1 * torch.eye(3)
    inverse = inverses(matrices.permute(2, 3, 0, 1)).permute(2, 3, 0, 1)
    torch.testing.assert_close(inverse, torch.linalg.inv(matrices))


def test_guided_borders_follow_the_frame():
    frames = torch.zeros(1, 64, 96, 3, dtype=torch.uint8)
    frames[:, :, 53:] = 200  # the object begins inside a token cell, 48..63
    labels = torch.zeros(1, 4, 6, dtype=torch.int64)
    labels[:, :, 3:] = 1
    truth = (frames[..., 0] > 0).long()
    clip = clip_of(labels, frames)
    guided = GuidedUpsampling()(BACKBONE, clip)
    nearest = NearestUpsampling()(BACKBONE, clip)
    assert (nearest == truth).float().mean() < 0.96
    assert (guided == truth).float().mean() > 0.99


def test_soft_borders_lie_between_cells_and_the_probabilities_are_votes():
    frames = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    labels = torch.tensor([[[5, 9]]])
    halves = SoftUpsampling()(BACKBONE, clip_of(labels, frames))
    assert halves[0, 0].tolist() == [5] * 4 + [9] * 4
    # Token 1 alone bears 9 and its nearest neighbours bear 5: the votes outnumber it.
    labels = torch.tensor([[[5, 9, 5, 5]]])
    features = torch.tensor([[[0.0], [0.1], [0.2], [0.3]]])
    assert set(SoftUpsampling(3)(BACKBONE, clip_of(labels, frames, features)).unique().tolist()) == {5}
    assert set(SoftUpsampling(1)(BACKBONE, clip_of(labels, frames, features)).unique().tolist()) == {5, 9}


@pytest.mark.parametrize("upsampling", [SoftUpsampling(), GuidedUpsampling()], ids=lambda stage: type(stage).__name__)
class TestBothUpsamplings:
    def random_clip(self, label_ids=(3, 40, 255), num_frames=3, size=(37, 53)):
        labels = torch.randint(len(label_ids), (num_frames, 4, 6), generator=generator())
        frames = torch.randint(256, (num_frames, *size, 3), generator=generator(1), dtype=torch.uint8)
        features = torch.randn(num_frames, 24, 5, generator=generator(2))
        label_set = torch.tensor(label_ids)
        return clip_of(label_set[labels], frames, features, label_set)

    def test_renaming_labels_renames_the_result(self, upsampling):
        names = torch.tensor([3, 40, 255])
        renamed = upsampling(BACKBONE, self.random_clip((0, 1, 2)))
        assert torch.equal(upsampling(BACKBONE, self.random_clip()), names[renamed])

    def test_a_frame_does_not_depend_on_the_others(self, upsampling):
        clip = self.random_clip()
        alone = clip._replace(
            labels_Thw=clip.labels_Thw[1:2], frames_THW3=clip.frames_THW3[1:2], features_Tnc=clip.features_Tnc[1:2]
        )
        assert torch.equal(upsampling(BACKBONE, alone)[0], upsampling(BACKBONE, clip)[1])

    def test_one_label_is_everywhere(self, upsampling):
        labels = torch.full((1, 2, 3), 8)
        frames = torch.randint(256, (1, 20, 30, 3), generator=generator(), dtype=torch.uint8)
        assert (upsampling(BACKBONE, clip_of(labels, frames)) == 8).all()

    def test_no_frame_is_wanted(self, upsampling):
        clip = self.random_clip()
        none = clip._replace(labels_Thw=clip.labels_Thw[:0], frames_THW3=clip.frames_THW3[:0])
        assert upsampling(BACKBONE, none).shape == (0, 37, 53)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="num_neighbors = 0"):
        SoftUpsampling(0)
    with pytest.raises(ValueError, match=r"radius = 0.*at least 1"):
        GuidedUpsampling(radius=0)
