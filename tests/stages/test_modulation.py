"""The last stage: masked modulation over a toy backbone, and nearest upsampling."""

import numpy as np
import pytest
import torch
from toy_backbone import ToyBackbone, striped_video

from zsvss.backbones.base import FeatureKey
from zsvss.stages.modulation import LabelledClip, MaskedModulation, NearestUpsampling, blend_latents
from zsvss.stages.trace import Trace

GRID = (4, 6)


def labelled_clip(backbone, *, num_frames=3, size=(64, 96), label_ids=(3, 40, 255), seed=0):
    """Random label grids; the last label is absent from frame 0."""
    frames, _ = striped_video(num_frames, *size)
    generator = torch.Generator().manual_seed(seed)
    images = torch.nn.functional.interpolate(frames.permute(0, 3, 1, 2).float(), (64, 96)) / 127.5 - 1
    noise = backbone.sample_noise(num_frames, 64, 96, generator)
    noised = backbone.add_noise(backbone.encode(images, noise), noise)
    recording = backbone.record(noised, backbone.condition(images, noise), [FeatureKey(24, 7)])
    label_set = torch.tensor(label_ids)
    index = torch.randint(len(label_ids), (num_frames, *GRID), generator=generator)
    index[0] %= len(label_ids) - 1
    return LabelledClip(label_set[index], label_set, frames, recording)


def test_a_modulation_that_shows_only_inside_its_mask_returns_the_mask():
    backbone = ToyBackbone()
    clip = labelled_clip(backbone)
    labels = MaskedModulation()(backbone, clip)
    cells = clip.labels_Thw.repeat_interleave(16, 1).repeat_interleave(16, 2)
    inner = torch.zeros(64, 96, dtype=torch.bool).view(4, 16, 6, 16)
    inner[:, 2:-2, :, 2:-2] = True  # the blur reaches two pixels over a border
    inner = inner.view(64, 96)
    assert torch.equal(labels[:, inner], cells[:, inner])


def test_frames_without_a_label_are_not_computed_unless_frames_are_coupled():
    backbone = ToyBackbone()
    clip = labelled_clip(backbone)
    MaskedModulation()(backbone, clip)
    present = sum(len(frame.unique()) for frame in clip.labels_Thw)
    assert sum(map(len, backbone.rows)) == present * 2 * 3  # signs and steps
    coupled = ToyBackbone(couples_frames=True, pairs=3)
    MaskedModulation()(coupled, clip)
    assert all(rows == [0, 1, 2, 0, 1, 2] for rows in coupled.rows)
    assert len(coupled.rows) == 3 * 3  # labels and steps


@pytest.mark.parametrize("difference", ["float", "uint8", "published"])
def test_the_size_of_a_pass_changes_nothing(difference):
    modulation = MaskedModulation(difference=difference, mask_prior=0.7)
    results = []
    for pairs in (1, 3, 32):
        backbone = ToyBackbone(pairs)
        results.append(modulation(backbone, labelled_clip(backbone)))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_segmentation_is_the_first_argmax_of_the_normalised_maps():
    backbone = ToyBackbone()
    clip = labelled_clip(backbone)
    trace = Trace()
    labels = MaskedModulation()(backbone, clip, trace)
    maps = torch.cat(trace.difference_maps).double().numpy()
    dense = np.zeros((3, 3, 64, 96))
    for (frame, label), difference in zip(torch.cat(trace.rows_B2).tolist(), maps, strict=True):
        dense[label, frame] = difference / (difference.max() + 1e-8)
    assert np.array_equal(labels.numpy(), clip.label_set_L.numpy()[dense.argmax(0)])
    frames, rows = trace.rows_of_label(2)
    assert 0 not in frames.tolist()
    assert len(rows) == 2


def test_renaming_labels_in_order_renames_the_result():
    backbone = ToyBackbone()
    clip = labelled_clip(backbone)
    renamed = labelled_clip(backbone, label_ids=(0, 1, 2))
    names = torch.tensor([3, 40, 255])
    modulation = MaskedModulation()
    assert torch.equal(modulation(backbone, clip), names[modulation(backbone, renamed)])


def test_blending_keeps_the_recorded_latents_outside_the_mask():
    backbone = ToyBackbone()
    clip = labelled_clip(backbone)
    trace = Trace()
    MaskedModulation()(backbone, clip, trace)
    latents = torch.cat(trace.modulated_latents)
    for (frame, label), signs in zip(torch.cat(trace.rows_B2).tolist(), latents, strict=True):
        mask = (clip.labels_Thw[frame] == clip.label_set_L[label]).repeat_interleave(2, 0).repeat_interleave(2, 1)
        recorded = clip.recording.latents[24][frame]
        assert torch.equal(signs[:, :, ~mask], recorded[:, ~mask].expand(2, -1, -1))
        torch.testing.assert_close(signs[0][:, mask], recorded[:, mask] + 0.5)
        torch.testing.assert_close(signs[1][:, mask], recorded[:, mask] - 0.5)


def test_blend_is_linear_in_the_mask():
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([5.0, 6.0])
    assert blend_latents(a, b, torch.tensor([1.0, 0.0])).tolist() == [1.0, 6.0]


def test_frames_of_another_size_come_back_at_their_own():
    backbone = ToyBackbone()
    clip = labelled_clip(backbone, size=(70, 101))
    before = clip.labels_Thw.clone()
    for stage in (MaskedModulation(mask_prior=0.7), NearestUpsampling()):
        assert stage(backbone, clip).shape == (3, 70, 101)
    assert torch.equal(clip.labels_Thw, before)


def test_nearest_upsampling_is_a_plain_lookup():
    backbone = ToyBackbone()
    clip = labelled_clip(backbone, size=(70, 101))
    labels = NearestUpsampling()(backbone, clip)
    for y, x in [(0, 0), (69, 100), (35, 50), (17, 83)]:
        cell = clip.labels_Thw[:, int((y + 0.5) * 4 / 70), int((x + 0.5) * 6 / 101)]
        assert torch.equal(labels[:, y, x], cell)


def test_the_prior_must_be_a_share():
    with pytest.raises(ValueError, match="mask_prior = 7"):
        MaskedModulation(mask_prior=7)


class SmallMemory(ToyBackbone):
    """Fits so many rows and no more."""

    def __init__(self, fits: int) -> None:
        super().__init__(pairs=32)
        self.fits, self.failed = fits, 0

    def denoise(self, x_Bchw, step, recording, frames_B, offset_Bn=None, **options):
        if len(x_Bchw) > self.fits:
            self.failed += 1
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return super().denoise(x_Bchw, step, recording, frames_B, offset_Bn, **options)


@pytest.mark.parametrize("fits", [2, 5, 9])
def test_out_of_memory_halves_the_rows_and_changes_nothing(fits):
    backbone, small = ToyBackbone(), SmallMemory(fits)
    traces = Trace(), Trace()
    labels = [
        MaskedModulation()(device, labelled_clip(device), trace)
        for device, trace in zip((backbone, small), traces, strict=True)
    ]
    assert torch.equal(*labels)
    assert torch.equal(*(torch.cat(trace.rows_B2) for trace in traces))
    assert torch.equal(*(torch.cat(trace.modulated_steps[23]) for trace in traces))
    assert small.failed
    assert max(map(len, small.rows)) <= fits


def test_out_of_memory_with_the_smallest_batch_is_an_error():
    small = SmallMemory(fits=0)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        MaskedModulation()(small, labelled_clip(small))
