import av
import numpy as np
import pytest
from PIL import Image


def _frames(num_frames, height, width, seed=0):
    """Smooth moving colour fields: every frame differs from every other."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    field = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return np.stack([np.roll(field, 3 * number, axis=1) for number in range(num_frames)])


@pytest.fixture
def hanging_workers_are_killed_soon(monkeypatch):
    """PyTorch waits 5 s for a worker that hangs before it kills it, which none of our settings changes."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)


@pytest.fixture
def make_frames():
    return _frames


@pytest.fixture
def write_images():
    """Write arrays as numbered images and return their folder."""

    def write(folder, frames, suffix=".png", first=0, step=1, mode=None, **options):
        folder.mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(frames):
            image = Image.fromarray(frame) if mode is None else Image.fromarray(frame).convert(mode)
            image.save(folder / f"{first + step * number:05d}{suffix}", **options)
        return folder

    return write


@pytest.fixture
def write_video():
    """Encode arrays as a video file and return its path."""

    def write(path, frames, codec="libx264", **container_options):
        with av.open(str(path), "w", options=container_options) as container:
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
            container.mux(stream.encode())
        return path

    return write
