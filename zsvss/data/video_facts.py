"""What is known of a video before its frames are read: how many there are, when each is shown, the shape of a pixel."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction


@dataclass(frozen=True)
class VideoFacts:
    """What is known of a video before its frames are read.

    Attributes:
        num_frames: Number of frames that decoding gives.
        size: (H, W) of every frame, upright.
        stamps: When each frame is shown, in units of ``time_base``, strictly increasing; the first may differ from 0.
            Empty for images, which have no times.
        time_base: Seconds of one unit.
        last_duration: How long the last frame is shown, in units of ``time_base``; 0 if that is not known.
        own_stamps: Whether the decoder gives every frame its number in ``stamps``; if not, they were made from the
            frame rate or from the order of decoding.
        sample_aspect_ratio: Width of a pixel by its height, upright.
        orientation: How a decoded frame is turned upright, 1..8 as in EXIF; ``size`` is that of the upright one.
        key_frames: Numbers of frames other than the first at which decoding can begin, in order.
    """

    num_frames: int
    size: tuple[int, int]
    stamps: tuple[int, ...] = field(default=(), repr=False)
    time_base: Fraction = Fraction(1)
    last_duration: int = 0
    own_stamps: bool = False
    sample_aspect_ratio: Fraction = Fraction(1)
    orientation: int = 1
    key_frames: tuple[int, ...] = field(default=(), repr=False)

    @property
    def times(self) -> tuple[float, ...]:
        """Seconds from the first frame to each frame; empty for images.

        Example:
            >>> VideoFacts(3, (4, 6), (10, 11, 14), Fraction(1, 10)).times
            (0.0, 0.1, 0.4)
        """
        return tuple(float((stamp - self.stamps[0]) * self.time_base) for stamp in self.stamps)

    @property
    def duration(self) -> float | None:
        """Seconds from the first frame's begin to the last one's end; None for images.

        A last frame whose own duration is unknown lasts as long as the frames do on average.
        """
        if not self.stamps:
            return None
        span = self.stamps[-1] - self.stamps[0]
        last = self.last_duration or Fraction(span, max(1, len(self.stamps) - 1))
        return float((span + last) * self.time_base)

    @property
    def fps(self) -> float | None:
        """Frames per second on average; None for images and for a single frame of unknown duration."""
        return self.num_frames / self.duration if self.duration else None
