"""A clip, the unit of work, and how a video is cut into clips.

T frames of the clip, H W pixels; 3 is RGB.
"""

from typing import Literal, NamedTuple

from torch import Tensor

Tail = Literal["overlap", "short"]


class Clip(NamedTuple):
    """Consecutive frames of one video (a NamedTuple, so that Lightning moves its tensors to the device).

    Attributes:
        video: Name of the video, unique in the data set.
        index: Number of the clip within the video, from 0.
        start: Number of the clip's first frame within the video, from 0.
        frames_THW3: uint8 RGB at the frames' own size.
        labels_THW: uint8 raw ground-truth values at the ground truth's own size (255 in frames without
            ground truth); None if no frame of the clip has ground truth.
        labelled_T: bool, which frames have ground truth.
        num_final: The first ``num_final`` frames of this clip will not be predicted again by a later clip.
        video_length: Number of frames of the whole video; more than that while it is not known.
        frame_names: Names of the frames (file stems, or zero-padded numbers for video files).
        resized_THW3: The frames at the size that the network sees; None if that is their own, or the loader was not
            told.
        shot: Number of the shot within the video, from 0, of which all frames are; None where shots are not followed.
        place: What it takes to go on after this clip; None where that cannot be.
        times: Seconds from a stream's first frame to each; None for other videos.
        received: Seconds since the epoch when the last frame came in; None where it was there before.
        num_dropped: Frames of the stream so far that were left out because they came too fast.
    """

    video: str
    index: int  # type: ignore[assignment]  # in place of a tuple's own
    start: int
    frames_THW3: Tensor
    labels_THW: Tensor | None
    labelled_T: Tensor
    num_final: int
    video_length: int
    frame_names: tuple[str, ...]
    resized_THW3: Tensor | None = None
    shot: int | None = None
    place: str | None = None
    times: tuple[float, ...] | None = None
    received: float | None = None
    num_dropped: int = 0

    @property
    def is_first(self) -> bool:
        """Whether the video begins with this clip."""
        return self.index == 0

    @property
    def is_last(self) -> bool:
        """Whether the video ends with this clip."""
        length = len(self.frame_names)
        return self.start + length == self.video_length and self.num_final == length


def clip_starts(
    num_frames: int, clip_length: int, tail: Tail = "overlap", repeat_last_clip: bool = False
) -> list[tuple[int, int, int]]:
    """Cut a video into consecutive clips.

    Args:
        num_frames: Frames of the video, at least 1.
        clip_length: Frames of a clip, at least 1. A shorter video is one short clip.
        tail: What to do with a remainder: ``overlap`` moves the last clip back so that it is full (its
            predictions replace those of the clip before), ``short`` makes it a short clip.
        repeat_last_clip: Process the last clip a second time if the clip length divides the video length, as
            the published code does by accident.

    Returns:
        (start, length, num_final) of every clip; the ``num_final`` of all clips add up to ``num_frames``.

    Example:
        >>> clip_starts(7, 3)
        [(0, 3, 3), (3, 3, 1), (4, 3, 3)]
        >>> clip_starts(7, 3, tail="short")
        [(0, 3, 3), (3, 3, 3), (6, 1, 1)]
        >>> clip_starts(6, 3, repeat_last_clip=True)
        [(0, 3, 3), (3, 3, 0), (3, 3, 3)]
    """
    if num_frames < 1 or clip_length < 1:
        raise ValueError(f"a video needs a frame and a clip too: num_frames {num_frames}, clip_length {clip_length}")
    if tail not in ("overlap", "short"):
        raise ValueError(f"tail is {tail!r}; allowed: 'overlap', 'short'")
    if num_frames < clip_length:
        return [(0, num_frames, num_frames)]
    clips = [(start, clip_length, clip_length) for start in range(0, num_frames - clip_length + 1, clip_length)]
    remainder = num_frames % clip_length
    if remainder and tail == "short":
        clips.append((num_frames - remainder, remainder, remainder))
    elif remainder:
        clips[-1] = (clips[-1][0], clip_length, remainder)
        clips.append((num_frames - clip_length, clip_length, clip_length))
    elif repeat_last_clip:
        clips[-1:] = [(clips[-1][0], clip_length, 0), clips[-1]]
    return clips
