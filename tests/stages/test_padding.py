"""Mirrored borders: exact to take off, and no change to what lies inside."""

import numpy as np
import pytest
import torch
from toy_backbone import ToyBackbone, striped_video

from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.modulation import MaskedModulation
from zsvss.stages.padding import crop, margins_on, mirror
from zsvss.stages.refinement import CorrespondenceRefinement
from zsvss.stages.trace import Trace


@pytest.mark.parametrize("margins", [(0, 0), (2, 0), (1, 3), (4, 5)])
def test_mirroring_is_numpys_symmetric_padding_and_cropping_undoes_it(margins):
    tensor = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    padded = mirror(tensor, margins)
    y, x = margins
    assert np.array_equal(padded.numpy(), np.pad(tensor.numpy(), ((0, 0), (y, y), (x, x)), mode="symmetric"))
    assert torch.equal(crop(padded, margins), tensor)


def test_mirrored_pixels_pool_to_mirrored_cells():
    image = torch.randn(1, 64, 96, generator=torch.Generator().manual_seed(0))
    cells = torch.nn.functional.avg_pool2d(image, 16)
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(mirror(image, (32, 32)), 16), mirror(cells, (2, 2)))


def test_padding_must_be_whole_cells():
    assert margins_on((8, 10), 16, (128, 160)) == (1, 1)
    with pytest.raises(ValueError, match="padding = 8 must be a multiple of 16"):
        margins_on((8, 10), 8, (128, 160))
    with pytest.raises(ValueError, match="padding = -16 must be 0 or more"):
        VideoSegmenter(ToyBackbone(), padding=-16)


@pytest.mark.parametrize("padding", [16, 32])
@pytest.mark.parametrize("couples_frames", [False, True])
def test_the_method_runs_padded_and_labels_come_back_at_the_frames_own_size(padding, couples_frames):
    frames, bands = striped_video(num_frames=4, height=128, width=96)
    backbone = ToyBackbone(couples_frames=couples_frames)
    segmenter = VideoSegmenter(
        backbone, KNNSceneContext(4), CorrespondenceRefinement(), MaskedModulation(), padding=padding
    )
    trace = Trace()
    labels = segmenter(frames, generator=torch.Generator().manual_seed(0), trace=trace).labels_THW
    height, width = ((side + 2 * padding) // 32 * 32 for side in (128, 96))
    assert trace.latents_Tcuv.shape[-2:] == (height // 8, width // 8)
    assert trace.grid == ((height - 2 * padding) // 16, (width - 2 * padding) // 16)
    assert trace.features_Tnc.shape[1] == trace.grid[0] * trace.grid[1]
    assert labels.shape == frames.shape[:3]
    # Labels lie where the bands are, so nothing is shifted by the padding.
    right = sum(int(torch.bincount(bands[labels == label]).max()) for label in labels.unique())
    assert right / labels.numel() > 0.85


def test_a_network_without_a_border_gives_the_same_inside():
    """Latents of the toy are means of their own pixels, so mirrored ones change nothing inside but the noise."""
    frames, _ = striped_video(num_frames=2)
    plain, padded = (VideoSegmenter(ToyBackbone(), padding=padding) for padding in (0, 32))
    traces = Trace(), Trace()
    for segmenter, trace in zip((plain, padded), traces, strict=True):
        segmenter(frames, generator=torch.Generator().manual_seed(0), trace=trace)
    inner = [trace.features_Tnc.unflatten(1, (4, 6))[:, 1:-1, 1:-1] for trace in traces]
    torch.testing.assert_close(*inner, atol=0.03, rtol=0)  # noise of 1e-3 over features that may be small
