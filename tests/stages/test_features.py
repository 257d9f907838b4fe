"""Which recorded tensors become features, and how they are normalised."""

import pytest
import torch
from toy_backbone import ToyBackbone

from zsvss.backbones.base import Conditioning, FeatureKey, Recording
from zsvss.stages.features import AttentionFeatures, ColorPositionFeatures, normalize

BACKBONE = ToyBackbone()
IMAGES = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(5)) * 2 - 1


def recording(keys, num_channels=4):
    generator = torch.Generator().manual_seed(0)
    result = Recording(torch.zeros(2, 4, 4, 6), Conditioning(torch.zeros(2, 1, 1)))
    result.tensors = {key: torch.randn(2, 2, 6, num_channels, generator=generator) for key in keys}
    result.grids = {key.block: (2, 3) for key in keys}
    return result


def test_the_default_is_the_mean_query_of_blocks_6_to_8_at_the_last_step():
    features = AttentionFeatures()
    keys = features.keys(BACKBONE)
    assert keys == [FeatureKey(24, block, "self", "query") for block in (6, 7, 8)]
    record = recording(keys)
    mean = sum(record.tensors[key][1] for key in keys) / 3  # index 1: the conditional half
    for frame, token in [(0, 0), (1, 5)]:
        expected = mean[frame, token] / mean[frame, token].abs().max()
        torch.testing.assert_close(features(BACKBONE, record, IMAGES)[frame, token], expected)
    assert features.grid(BACKBONE, record) == (2, 3)


def test_steps_average_and_count_from_the_end():
    features = AttentionFeatures(blocks=(7,), steps=(22, -1), layer="cross", projection="key", normalization="none")
    keys = features.keys(BACKBONE)
    assert [key.step for key in keys] == [22, 24]
    record = recording(keys)
    expected = (record.tensors[keys[0]][1] + record.tensors[keys[1]][1]) / 2
    torch.testing.assert_close(features(BACKBONE, record, IMAGES), expected)


@pytest.mark.parametrize("normalization", ["maximum", "euclidean"])
def test_normalisation_leaves_a_token_of_zeros(normalization):
    result = normalize(torch.tensor([[[0.0, 0.0], [3.0, -4.0]]]), normalization)
    assert result[0, 0].tolist() == [0, 0]
    expected = [0.75, -1.0] if normalization == "maximum" else [0.6, -0.8]
    torch.testing.assert_close(result[0, 1], torch.tensor(expected))


def test_errors_name_the_key_and_what_is_allowed():
    with pytest.raises(ValueError, match=r"features.blocks = \[12\].*0 and 11"):
        AttentionFeatures(blocks=(12,))
    with pytest.raises(ValueError, match=r"features\.projection = 'query'.*only an 'output'"):
        AttentionFeatures(layer="block")
    with pytest.raises(ValueError, match=r"steps \[3\] are not run.*\[22, 23, 24\]"):
        AttentionFeatures(steps=(3,)).keys(BACKBONE)
    keys = AttentionFeatures(blocks=(6, 9)).keys(BACKBONE)
    record = recording(keys)
    record.tensors[keys[1]] = torch.zeros(2, 2, 24, 4)
    with pytest.raises(ValueError, match=r"share one token grid.*\{6: .*, 9: .*\}"):
        AttentionFeatures(blocks=(6, 9))(BACKBONE, record, IMAGES)


def test_colour_and_position_of_each_cell():
    features = ColorPositionFeatures(position_weight=0.5)(BACKBONE, recording([]), IMAGES)
    assert features.shape == (2, 6, 5)
    cell = (IMAGES[1, :, 16:, 32:].mean((1, 2)) + 1) / 2  # the last of 2x3 cells
    torch.testing.assert_close(features[1, 5], torch.cat([cell, torch.tensor([0.5, 0.5])]))
    torch.testing.assert_close(features[0, 1, 3:], torch.tensor([0.0, 0.25]))
