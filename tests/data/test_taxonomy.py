import numpy as np
import pytest
import torch

from zsvss.data.camvid import CAMVID_11, CAMVID_32
from zsvss.data.cityscapes import CITYSCAPES_19
from zsvss.data.procedural import PROCEDURAL
from zsvss.data.taxonomy import IGNORE_INDEX, Taxonomy, bit_palette
from zsvss.data.vspw import VSPW_RAW, VSPW_SHIFTED

TAXONOMIES = (CAMVID_11, CAMVID_32, CITYSCAPES_19, PROCEDURAL, VSPW_RAW, VSPW_SHIFTED)


@pytest.mark.parametrize("taxonomy", TAXONOMIES, ids=lambda taxonomy: taxonomy.name)
def test_class_ids_equal_a_loop_over_pixels(taxonomy):
    raw = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 7, 5), dtype=np.uint8))
    ids = taxonomy.class_ids(raw)
    assert ids.dtype == torch.int64
    expected = [taxonomy.class_of_raw.get(value, IGNORE_INDEX) for value in raw.flatten().tolist()]
    assert ids.flatten().tolist() == expected


@pytest.mark.parametrize("taxonomy", TAXONOMIES, ids=lambda taxonomy: taxonomy.name)
def test_every_class_is_reached_by_one_raw_value_and_has_a_name_and_a_colour_of_its_own(taxonomy):
    assert sorted(taxonomy.class_of_raw.values()) == list(range(taxonomy.num_classes))
    assert len(set(taxonomy.classes)) == taxonomy.num_classes
    # VSPW's authors give Playground_slide and car one colour.
    assert taxonomy.num_classes - len(set(taxonomy.palette)) == (1 if taxonomy.name.startswith("vspw") else 0)


def test_every_raw_value_gets_an_id():
    ids = CAMVID_11.class_ids(torch.arange(256, dtype=torch.uint8))
    assert ids.tolist() == [*range(11), *[IGNORE_INDEX] * 245]


@pytest.mark.parametrize(
    ("palette", "class_of_raw", "message"),
    [
        (((0, 0, 0),), {0: 0}, "2 class names but 1 colours"),
        (((0, 0, 0), (1, 1, 1)), {0: 2}, r"class ids 0\.\.1"),
        (((0, 0, 0), (1, 1, 1)), {256: 1}, r"raw values are 0\.\.255"),
    ],
)
def test_a_contradictory_taxonomy_is_refused(palette, class_of_raw, message):
    with pytest.raises(ValueError, match=message):
        Taxonomy("broken", ("a", "b"), palette, class_of_raw)


def test_bit_palette_has_no_repeats():
    assert len(set(bit_palette(256))) == 256
