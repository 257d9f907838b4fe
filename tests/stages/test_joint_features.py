"""Joint features: grids, scales, weights; colour against OpenCV."""

import cv2
import numpy as np
import pytest
import torch
from toy_backbone import ToyBackbone

from zsvss.backbones.base import Conditioning, FeatureKey, Recording
from zsvss.stages.features import Features
from zsvss.stages.joint_features import (
    BlockFeatures,
    JointFeatures,
    LabFeatures,
    LatentFeatures,
    PositionFeatures,
    resized_tokens,
    rgb_to_lab,
    unit_variance,
)

BACKBONE = ToyBackbone()
IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(5)) * 2 - 1


def recording():
    generator = torch.Generator().manual_seed(0)
    result = Recording(torch.zeros(2, 4, 8, 12), Conditioning(torch.zeros(2, 1, 1)), grids={8: (4, 6), 5: (2, 3)})
    for block, scale, channels in ((8, 30.0, 7), (5, 0.01, 5)):
        tokens = result.grids[block][0] * result.grids[block][1]
        tensor = scale * torch.randn(2, 2, tokens, channels, generator=generator) + 4 * scale
        result.tensors[FeatureKey(24, block, "block", "output")] = tensor
    return result


def test_parts_lie_side_by_side_on_one_grid_with_the_square_of_their_weight_as_variance():
    features = JointFeatures([BlockFeatures(8), BlockFeatures(5), LabFeatures(), PositionFeatures()], [1, 2, 0.5, 0])
    assert features.keys(BACKBONE) == [FeatureKey(24, block, "block", "output") for block in (8, 5)]
    record = recording()
    joint = features(BACKBONE, record, IMAGES)
    assert joint.shape == (2, 24, 7 + 5 + 3 + 2)
    assert features.grid(BACKBONE, record) == (4, 6)
    variances = [float(part.flatten(0, 1).var(0, correction=0).sum()) for part in joint.split([7, 5, 3, 2], 2)]
    assert variances == pytest.approx([1, 4, 0.25, 0], rel=1e-4)


def test_the_first_part_is_its_block_output_but_for_the_scale():
    record = recording()
    joint = JointFeatures([BlockFeatures(8), BlockFeatures(5)])(BACKBONE, record, IMAGES)
    stored = record.tensors[FeatureKey(24, 8, "block", "output")][1]
    ratio = joint[..., :7] / stored
    torch.testing.assert_close(ratio, ratio[0, 0, 0].expand_as(ratio))


def test_every_token_counts_where_a_grid_shrinks():
    tokens = torch.randn(1, 16 * 16, 2, generator=torch.Generator().manual_seed(1))
    changed = tokens.clone()
    changed[0, 16 * 5 + 5] += 100
    assert not torch.equal(resized_tokens(tokens, (16, 16), (4, 4)), resized_tokens(changed, (16, 16), (4, 4)))
    constant = torch.full((1, 6, 2), 3.0)
    torch.testing.assert_close(resized_tokens(constant, (2, 3), (5, 7)), torch.full((1, 35, 2), 3.0))
    assert resized_tokens(tokens, (16, 16), (16, 16)) is tokens


def test_a_constant_keeps_its_size():
    constant = torch.full((2, 6, 3), 0.3)
    assert torch.equal(unit_variance(constant), constant)
    assert torch.equal(unit_variance(torch.zeros(2, 6, 3)), torch.zeros(2, 6, 3))


def test_lab_is_opencvs_and_has_the_published_primaries():
    rgb = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    rgb[0, :, 0, :5] = torch.tensor([[0.0, 1, 1, 0, 0], [0, 1, 0, 1, 0], [0, 1, 0, 0, 1]])
    opencv = cv2.cvtColor(rgb[0].permute(1, 2, 0).numpy(), cv2.COLOR_RGB2LAB)
    ours = rgb_to_lab(rgb)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(ours, opencv, atol=0.5)  # OpenCV reads its curves from tables: a third of a unit off
    primaries = [[0, 0, 0], [100, 0, 0], [53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]]
    np.testing.assert_allclose(ours[0, :5], primaries, atol=0.02)


def test_positions_are_centres_in_units_of_the_longer_side():
    position = PositionFeatures()(BACKBONE, recording(), IMAGES)
    assert position.shape == (2, 24, 2)
    torch.testing.assert_close(position[1, 8], torch.tensor([1.5 / 6, 2.5 / 6]))


def test_parts_and_weights_are_checked():
    with pytest.raises(ValueError, match=r"features\.parts is empty"):
        JointFeatures([])
    with pytest.raises(ValueError, match=r"weights = \[1\] must be one a part; there are 2 parts"):
        JointFeatures([LabFeatures(), PositionFeatures()], [1])


def test_one_part_alone_is_a_rescaled_part():
    part: Features = LabFeatures()
    alone = part(BACKBONE, recording(), IMAGES)
    torch.testing.assert_close(JointFeatures([part])(BACKBONE, recording(), IMAGES), unit_variance(alone))


@pytest.mark.parametrize("block", [6, 9])
def test_latent_features_are_mean_latents_of_each_cell_with_position_at_its_weight(block):
    record = recording()
    record.encoded_Tchw = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(1))
    side = 2 if block == 6 else 1
    cells = record.encoded_Tchw.unfold(2, side, side).unfold(3, side, side).mean((4, 5))
    bare = LatentFeatures(block=block)
    expected = cells.flatten(2).transpose(1, 2)
    torch.testing.assert_close(bare(BACKBONE, record, IMAGES), expected)
    assert bare.grid(BACKBONE, record) == (8 // side, 12 // side)
    placed = LatentFeatures(0.5, block)(BACKBONE, record, IMAGES)
    joint = JointFeatures([bare, PositionFeatures(block)], [1, 0.5])(BACKBONE, record, IMAGES)
    torch.testing.assert_close(placed, joint)


def test_latent_features_say_what_they_lack():
    with pytest.raises(ValueError, match="encoded_Tchw"):
        LatentFeatures()(BACKBONE, recording(), IMAGES)
    with pytest.raises(ValueError, match=r"features.block = 12"):
        LatentFeatures(block=12)
