from __future__ import annotations

import numpy as np

from zsvss.results.segment_colors import palette
from zsvss.results.segment_table import measure
from zsvss.viz.captions import Captions

GREY = np.full((240, 320, 3), 100, np.uint8)


def changed(image_HW3: np.ndarray) -> np.ndarray:
    return (image_HW3[:240] != GREY).any(-1)


def test_each_segment_bears_its_id_where_there_is_room() -> None:
    ids_HW = np.zeros((240, 320), int)
    ids_HW[20:100, 30:110] = 1
    ids_HW[150:220, 200:300] = 12
    ids_HW[0, :] = 3  # a line has no room
    image_HW3 = Captions((240, 320), palette(20)).draw(GREY, ids_HW, measure(ids_HW))
    inside = changed(image_HW3)
    assert inside[45:75, 55:85].any()
    assert inside[165:205, 230:270].any()
    assert not inside[(ids_HW == 0) | (ids_HW == 3)].any(), "captions lie inside their segments"
    assert (GREY == 100).all(), "the frame is not changed"


def test_a_caption_stays_where_it_is_while_there_is_room() -> None:
    captions = Captions((240, 320), palette(20))
    places = []
    for step in range(4):
        ids_HW = np.zeros((240, 320), int)
        ids_HW[20:120, 30 + 5 * step : 200 + 5 * step] = 1
        rows, columns = np.nonzero(changed(captions.draw(GREY, ids_HW, measure(ids_HW))))
        places.append((rows.mean(), columns.mean()))
    assert places == [places[0]] * 4


def test_the_legend_shows_colours_of_what_is_there_and_keeps_its_height() -> None:
    captions, colors = Captions((240, 320), palette(20), {1: "road", 2: "sky"}), palette(20)
    first_HW = np.zeros((240, 320), int)
    first_HW[:100] = 1
    both_HW = first_HW.copy()
    both_HW[100:] = 2
    one, two = (captions.draw(GREY, ids_HW, measure(ids_HW))[240:] for ids_HW in (first_HW, both_HW))
    assert one.shape == two.shape
    assert one.shape[1] == 320

    def shows(legend: np.ndarray, color: np.ndarray) -> bool:
        return bool((legend == color).all(-1).any())

    assert (shows(one, colors[0]), shows(one, colors[1])) == (True, False)
    assert (shows(two, colors[0]), shows(two, colors[1])) == (True, True)
    gone = captions.draw(GREY, first_HW, measure(first_HW))[240:]
    assert not shows(gone, colors[1]), "what is not in the frame is faint"
    assert (gone != one).any(), "but keeps its place"


def test_many_segments_fit_or_are_counted() -> None:
    rows, columns = np.mgrid[:240, :320]
    ids_HW = 1 + columns // 8 + 40 * (rows // 20)  # 480
    captions = Captions((240, 320), palette(256))
    image_HW3 = captions.draw(GREY, ids_HW, measure(ids_HW))
    assert 240 < len(image_HW3) <= 300


def test_the_legend_of_a_later_shot_shows_its_own_segments() -> None:
    colors = palette(256)
    captions = Captions((240, 320), colors)
    rows, columns = np.mgrid[:240, :320]
    many_HW = 1 + columns // 8 + 40 * (rows // 20)  # 480, far more than fit
    captions.draw(GREY, many_HW, measure(many_HW))
    later_HW = np.full((240, 320), 500)
    legend = captions.draw(GREY, later_HW, measure(later_HW), new_shot=2)[240:]
    assert (legend == colors[499 % 256]).all(-1).any()
    again = Captions((240, 320), colors)
    again.state = captions.state
    for new_shot in (2, None):
        one, two = (each.draw(GREY, later_HW, measure(later_HW), new_shot) for each in (captions, again))
        assert np.array_equal(one, two)
    assert len(captions.state[1]) == 1


def test_tiny_frames_have_a_legend_too() -> None:
    frame_HW3 = np.full((16, 16, 3), 100, np.uint8)
    ids_HW = np.ones((16, 16), int)
    image_HW3 = Captions((16, 16), palette(2)).draw(frame_HW3, ids_HW, measure(ids_HW))
    assert image_HW3.shape[0] > 16
    assert image_HW3.shape[1:] == (16, 3)
