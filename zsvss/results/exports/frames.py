"""The frames that predictions are of, for formats that want images beside labels."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import ExifTags, Image

from zsvss.results.exports import ExportError
from zsvss.results.predictions import Predictions

_QUALITY = 95
_FRAMES_AT_ONCE = 8


def write_frames(video: Predictions, places: Sequence[Path]) -> None:
    """Write each frame of a video; images that are as they should be are copied byte for byte.

    Args:
        video: whose frames.
        places: file of each frame; its ending says as what to save it.

    Raises:
        ExportError: the video or an image is not where it was, or is another one now.
    """
    source = Path(video.source.path)
    if not video.source.path:
        raise ExportError(
            f"--frames: the frames of {video.video} were generated, so there is no file to take them from"
        )
    if not source.exists():
        raise ExportError(
            f"--frames: {source}, the source of {video.video}, is not there any more; put it back, or export without "
            "--frames"
        )
    for folder in {place.parent for place in places}:
        folder.mkdir(parents=True, exist_ok=True)
    if video.source.files is not None:
        for name, place in zip(video.source.files, places, strict=True):
            _copy(source / name, place, video)
    else:
        _decode(source, places, video)


def _copy(image: Path, place: Path, video: Predictions) -> None:
    try:
        with Image.open(image) as opened:
            turned = opened.getexif().get(ExifTags.Base.Orientation, 1) != 1
            fits = opened.size == (video.width, video.height)
    except OSError as error:
        raise ExportError(f"--frames: {image} cannot be read ({error}); put it back") from error
    if image.suffix.lower() == place.suffix.lower() and not turned:
        if not fits:
            raise ExportError(
                f"--frames: {image} has another size than its mask; put the image back that was segmented"
            )
        shutil.copyfile(image, place)
        return
    from zsvss.data.images import read_rgb

    Image.fromarray(read_rgb(image)).save(place, quality=_QUALITY)


def _decode(source: Path, places: Sequence[Path], video: Predictions) -> None:
    # Here, as it needs PyTorch.
    from zsvss.data.reader import open_frames

    reader = open_frames(source)
    try:
        if len(reader) < len(places):
            raise ExportError(
                f"--frames: {source} has {len(reader)} frames and {video.video} was of {len(places)}; put the file "
                "back that was segmented"
            )
        for start in range(0, len(places), _FRAMES_AT_ONCE):
            stop = min(start + _FRAMES_AT_ONCE, len(places))
            for frame_HW3, place in zip(reader.read(start, stop).numpy(), places[start:stop], strict=True):
                Image.fromarray(frame_HW3).save(place, quality=_QUALITY)
    finally:
        reader.close()
