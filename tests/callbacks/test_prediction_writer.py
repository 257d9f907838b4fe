from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from zsvss.callbacks.prediction_writer import PredictionWriter
from zsvss.callbacks.video_predictions import Origin, VideoPredictions, kind_of
from zsvss.results.predictions import Predictions
from zsvss.viz.browser_video import BrowserVideo


def _video(num_frames: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    frames_THW3 = np.repeat(np.repeat(rng.integers(0, 256, (num_frames, 4, 4, 3), dtype=np.uint8), 16, 1), 16, 2)
    labels_THW = rng.integers(0, 5, (num_frames, height, width))
    labels_THW[labels_THW == 3] = -1
    labels_THW[: num_frames // 2, 0, 0] = 7  # appears only in the first half
    labels_THW[num_frames // 2 :][labels_THW[num_frames // 2 :] == 7] = 0
    return frames_THW3[:, :height, :width], labels_THW


def _decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize(("height", "width"), [(32, 48), (31, 47), (33, 64)])
def test_writes_what_was_predicted(tmp_path: Path, height: int, width: int) -> None:
    frames_THW3, labels_THW = _video(6, height, width)
    names = [f"{2 * number + 5:04d}" for number in range(6)]
    writer = VideoPredictions(tmp_path / "swan", "swan", fps=10)
    writer.write(frames_THW3[:4], labels_THW[:4], names[:4])
    writer.write(frames_THW3[4:], labels_THW[4:], names[4:])
    writer.close()

    written = sorted((tmp_path / "swan" / "masks").iterdir())
    assert [path.stem for path in written] == names
    for path, labels_HW in zip(written, labels_THW, strict=True):
        with Image.open(path) as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.asarray(image), np.where(labels_HW < 0, 0, labels_HW + 1))

    segments = json.loads((tmp_path / "swan" / "segments.json").read_text())
    assert (segments["height"], segments["width"], segments["num_frames"]) == (height, width, 6)
    assert segments["frame_names"] == names
    assert [segment["id"] for segment in segments["segments"]] == [1, 2, 3, 5, 8]
    for segment in segments["segments"]:
        area = (labels_THW + 1 == segment["id"]).sum((1, 2))
        present = np.flatnonzero(area)
        assert (segment["frames"], segment["areas"]) == (present.tolist(), area[present].tolist())
        assert (segment["first_frame"], segment["last_frame"]) == (present[0], present[-1])
        assert segment["num_frames"] == len(present)
    assert segments["segments"][-1]["last_frame"] == 2
    assert (segments["complete"], segments["video_length"], segments["overlay_alpha"]) == (True, 6, 0.5)


def test_goes_on_only_with_what_is_there_and_drawn_alike(tmp_path: Path) -> None:
    frames_THW3, labels_THW = _video(6, 32, 48)
    begun = VideoPredictions(tmp_path / "swan", "swan", origin=Origin(video_length=9), alpha=0.3)
    begun.write(frames_THW3, labels_THW, [str(number) for number in range(6)])
    state = begun.state()
    same = PredictionWriter(str(tmp_path), alpha=0.3)
    assert same.can_go_on("swan", state | {"num_frames": 6})
    assert not PredictionWriter(str(tmp_path), alpha=0.5).can_go_on("swan", state), (
        "the overlay would change in its midst"
    )
    assert not PredictionWriter(str(tmp_path), alpha=0.3, captions=False).can_go_on("swan", state)
    begun.close()
    overlay = tmp_path / "swan" / "overlay.mp4"
    overlay.rename(tmp_path / "swan" / ".tmp-overlay.mp4")  # as a process leaves it that is killed while it goes on
    assert same.can_go_on("swan", state)
    (tmp_path / "swan" / ".tmp-overlay.mp4").unlink()
    assert not same.can_go_on("swan", state)
    without = PredictionWriter(str(tmp_path), video=False)
    assert without.can_go_on("swan", state | {"settings": kind_of(True, False, True, 0.5)})
    (tmp_path / "swan" / "masks" / "3.png").unlink()
    assert not without.can_go_on("swan", state | {"settings": kind_of(True, False, True, 0.5)})


def test_a_stream_s_overlay_has_its_times_or_the_rate_that_is_wanted(tmp_path: Path) -> None:
    frames_THW3, labels_THW = _video(4, 32, 48)
    times = [0.0, 0.1, 0.5, 0.6]
    for fps, expected in ((None, times), (5.0, [0.0, 0.2, 0.4, 0.6])):
        writer = VideoPredictions(tmp_path, "door", fps=fps)
        writer.write(frames_THW3, labels_THW, ["0", "1", "2", "3"], times=times)
        writer.close()
        with av.open(str(tmp_path / "overlay.mp4")) as container:
            np.testing.assert_allclose([frame.time for frame in container.decode(video=0)], expected, atol=1e-3)
        assert json.loads((tmp_path / "segments.json").read_text())["frame_times"] == times


def test_an_interrupted_video_says_that_it_is_partial(tmp_path: Path) -> None:
    frames_THW3, labels_THW = _video(4, 32, 48)
    writer = VideoPredictions(tmp_path, "swan", origin=Origin(video_length=9), video=False)
    writer.write(frames_THW3, labels_THW, [str(number) for number in range(4)])
    writer.close()
    segments = json.loads((tmp_path / "segments.json").read_text())
    assert (segments["complete"], segments["num_frames"], segments["video_length"]) == (False, 4, 9)
    assert segments["overlay_alpha"] is None


@pytest.mark.parametrize(("height", "width"), [(32, 48), (31, 47)])
def test_overlay_is_what_browsers_play(tmp_path: Path, height: int, width: int) -> None:
    frames_THW3, labels_THW = _video(6, height, width)
    writer = VideoPredictions(tmp_path, "swan", fps=12.5, masks=False, alpha=0.0, captions=False)
    writer.write(frames_THW3, np.zeros_like(labels_THW), [str(number) for number in range(6)])
    writer.close()

    path = tmp_path / "overlay.mp4"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == 12.5
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "a browser has to load the whole file before it can start"
    decoded = _decode(path)
    assert decoded.shape == (6, height + height % 2, width + width % 2, 3)
    # Without labels' colours the overlay is the video, up to compression and halved colour resolution.
    error = np.abs(decoded[:, :height, :width].astype(float) - frames_THW3)
    assert np.median(error) < 8


def test_captions_and_legend_keep_the_frame(tmp_path: Path) -> None:
    labels_THW = np.zeros((2, 128, 160), int)
    labels_THW[:, 64:] = 1
    frames_THW3 = np.full((2, 128, 160, 3), 128, np.uint8)
    shown = []
    for captions in (False, True):
        writer = VideoPredictions(tmp_path / str(captions), "v", masks=False, captions=captions)
        writer.write(frames_THW3, labels_THW, ["a", "b"])
        writer.close()
        shown.append(_decode(tmp_path / str(captions) / "overlay.mp4").astype(int))
    bare, told = shown
    assert told.shape[1] > bare.shape[1] == 128
    assert told.shape[2] == bare.shape[2]
    differs = np.abs(told[:, :128] - bare).max(-1) > 60
    assert 0.001 < differs.mean() < 0.1, "ids, and nothing else of the frame"


def test_ids_beyond_eight_bits_make_sixteen_bit_images(tmp_path: Path) -> None:
    """Where labels are class ids, novelty opens labels from 256 on."""
    frames_THW3, labels_THW = _video(3, 8, 8)
    labels_THW[0, 0] = 254
    labels_THW[1, 2:5] = 255
    labels_THW[2, 2] = 65534
    labels_THW[1:, 7] = -1
    writer = VideoPredictions(tmp_path, "v", video=False)
    writer.write(frames_THW3, labels_THW, ["a", "b", "c"])
    writer.close()
    for name, labels_HW, mode in zip("abc", labels_THW, ("P", "I;16", "I;16"), strict=True):
        with Image.open(tmp_path / "masks" / f"{name}.png") as image:
            assert image.mode == mode
            np.testing.assert_array_equal(np.asarray(image), np.where(labels_HW < 0, 0, labels_HW + 1))
    assert {segment.id for segment in Predictions.read(tmp_path).segments} >= {255, 256, 65535}

    labels_THW[0, 0] = 65535
    with pytest.raises(ValueError, match=r"d\.png: label 65535 does not fit into 16 bits; allowed are 0\.\.65534"):
        writer.write(frames_THW3[:1], labels_THW[:1], ["d"])


def test_nothing_but_segments_if_nothing_else_is_wanted(tmp_path: Path) -> None:
    frames_THW3, labels_THW = _video(2, 8, 8)
    writer = VideoPredictions(tmp_path / "v", "v", masks=False, video=False)
    writer.write(frames_THW3, labels_THW, ["a", "b"])
    writer.close()
    assert [path.name for path in (tmp_path / "v").iterdir()] == ["segments.json"]


def test_video_is_finished_after_an_exception(tmp_path: Path) -> None:
    def interrupted() -> None:
        with BrowserVideo(tmp_path / "a.mp4", 5) as movie:
            movie.write(np.zeros((16, 16, 3), dtype=np.uint8))
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert len(_decode(tmp_path / "a.mp4")) == 1


@pytest.mark.parametrize(("setting", "value"), [("fps", 0.0), ("fps", -3.0), ("alpha", 1.5)])
def test_impossible_settings(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{setting} is {value}"):
        PredictionWriter(**{setting: value})
