import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from zsvss.stages.nearest_resizing import nearest


@pytest.mark.parametrize(
    "size", [(80, 448), (63, 117), (97, 201), (448, 832), (1, 1)], ids=lambda size: f"{size[0]}x{size[1]}"
)
def test_equals_pillow(size):
    """Ties included: of 80 rows each of 10 cells has its centre between two, of 448 columns each of 56 too."""
    labels_HW = torch.randint(0, 256, size, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    image = Image.fromarray(labels_HW.numpy())
    for height, width in itertools.product((1, 5, 10, 28, 80, 101), (1, 7, 52, 56, 200, 854)):
        expected = np.asarray(image.resize((width, height), Image.Resampling.NEAREST))
        np.testing.assert_array_equal(nearest(labels_HW, (height, width)).numpy(), expected)


def test_a_tie_goes_where_pillows_running_sum_puts_it():
    """25 cells from 185: each centre lies 7.4 after the last; exact arithmetic differs from Pillow's sum somewhere."""
    sides = [
        (side, new_side)
        for side, new_side in itertools.product(range(20, 60), range(3, 20))
        if [(2 * i + 1) * side // (2 * new_side) for i in range(new_side)]
        != np.asarray(Image.fromarray(np.arange(side, dtype=np.int32)[None]).resize((new_side, 1), 0))[0].tolist()
    ]
    assert sides  # otherwise this test shows nothing
    for side, new_side in sides:
        ramp = np.arange(side, dtype=np.uint8)
        expected = np.asarray(Image.fromarray(np.repeat(ramp[:, None], 3, 1)).resize((3, new_side), 0))
        assert nearest(torch.from_numpy(ramp)[:, None], (new_side, 1))[:, 0].tolist() == expected[:, 0].tolist()


def test_leading_dimensions_and_types_stay():
    maps = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    resized = nearest(maps, (8, 3))
    assert resized.dtype == torch.float32
    assert torch.equal(resized[1, 2], nearest(maps[1, 2], (8, 3)))
    assert nearest(maps, (4, 6)) is maps
