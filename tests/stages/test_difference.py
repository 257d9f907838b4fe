"""Difference maps against plain arithmetic and OpenCV, and the [quirk] of 8-bit overflow."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from zsvss.stages.difference import blur, difference_map, mask_prior, peak_normalized, quantize

SIZE = (23, 31)


def image_pair(seed=0, num_images=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, num_images, 3, *SIZE, generator=generator) * 2 - 1


def plain_map(plus, minus, *, wrap):
    """Colour distance of two uint8 images [3, H, W], blurred by OpenCV."""
    if wrap:
        with np.errstate(over="ignore"):
            difference = plus - minus
            squared = (difference * difference).astype(np.float64)
    else:
        squared = (plus.astype(np.float64) - minus.astype(np.float64)) ** 2
    return cv2.GaussianBlur(np.sqrt(squared.sum(0)), (5, 5), 3, borderType=cv2.BORDER_REFLECT_101)


def test_blur_is_opencvs():
    maps = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(1)) * 50
    expected = [cv2.GaussianBlur(m.numpy(), (5, 5), 3, borderType=cv2.BORDER_REFLECT_101) for m in maps]
    np.testing.assert_allclose(blur(maps).numpy(), np.stack(expected), atol=1e-4)


def test_blur_of_a_single_row_keeps_a_constant():
    torch.testing.assert_close(blur(torch.full((1, 1, 9), 3.0)), torch.full((1, 1, 9), 3.0))


def test_float_works_on_unquantised_images():
    plus, minus = image_pair()
    expected = np.sqrt(((plus - minus).double().numpy() * 127.5) ** 2).sum(1)  # not the norm: differs
    found = difference_map(plus, minus, "float").numpy()
    norm = np.sqrt((((plus - minus).double().numpy() * 127.5) ** 2).sum(1))
    blurred = [cv2.GaussianBlur(m, (5, 5), 3, borderType=cv2.BORDER_REFLECT_101) for m in norm]
    np.testing.assert_allclose(found, np.stack(blurred), atol=1e-3)
    assert not np.allclose(found, expected)


@pytest.mark.parametrize(("difference", "wrap"), [("uint8", False), ("published", True)])
def test_8_bit_variants_are_plain_8_bit_arithmetic(difference, wrap):
    plus, minus = image_pair(seed=3)
    expected = np.stack(
        [plain_map(p, m, wrap=wrap) for p, m in zip(quantize(plus).numpy(), quantize(minus).numpy(), strict=True)]
    )
    found = difference_map(plus, minus, difference).numpy()
    if wrap:
        assert found.dtype == np.float32
        assert np.array_equal(found, found.astype(np.uint8))  # came out of an 8-bit file
        assert np.abs(found - expected).mean() < 3  # JPEG of quality 75 over noise, in grey levels
        assert not np.allclose(found, np.floor(expected))
    else:
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_overflow_changes_the_map():
    plus, minus = image_pair(seed=4)
    assert not torch.equal(difference_map(plus, minus, "uint8"), difference_map(plus, minus, "published"))


def test_quantisation_truncates_and_clamps():
    values = torch.tensor([-2.0, -1.0, 0.0, 0.999, 1.0, 5.0])
    assert quantize(values).tolist() == [0, 0, 127, 254, 255, 255]


def test_peaks_are_one_and_zero_maps_stay_zero():
    maps = torch.stack([torch.zeros(SIZE), torch.rand(SIZE, generator=torch.Generator().manual_seed(0)) * 9])
    normalised = peak_normalized(maps)
    assert torch.equal(normalised[0], torch.zeros(SIZE, dtype=torch.float64))
    assert normalised[1].max() == pytest.approx(1, abs=1e-8)


def test_equal_shares_of_quantised_peaks_go_to_the_larger_peak():
    small, large = torch.tensor([[[1.0, 7.0]]]), torch.tensor([[[2.0, 14.0]]])
    assert peak_normalized(large)[0, 0, 0] > peak_normalized(small)[0, 0, 0]


def test_mask_prior_is_pillows_lanczos():
    mask = (torch.rand(1, 4, 6, generator=torch.Generator().manual_seed(2)) > 0.5).float()
    weight = mask_prior(mask, SIZE, 0.7)[0].numpy()
    image = Image.fromarray((mask[0].numpy() * 255).astype(np.uint8), "L").resize(SIZE[::-1], Image.Resampling.LANCZOS)
    inside = np.asarray(image) / 255
    np.testing.assert_allclose(weight, inside + 0.7 * (1 - inside), atol=1e-6)
    assert mask_prior(torch.ones(1, 4, 6), SIZE, 0.7).min() == 1
