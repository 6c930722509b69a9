"""The resize is torch's byte kernel, to the bit."""

import numpy as np
import pytest
import torch

from service.worker.resize import stretch


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [
        (1200, 1800, 1008),
        (534, 800, 1008),
        (1008, 1008, 1008),
        (1007, 1009, 1008),
        (2160, 3840, 1008),
        (1, 1, 256),
        (3, 5, 256),
        (5000, 7, 256),
        (97, 1013, 336),
    ],
)
def test_it_is_torchs_byte_kernel_to_the_bit(height: int, width: int, side: int) -> None:
    if (capability := torch.backends.cpu.get_cpu_capability()) not in ("AVX2", "AVX512"):
        pytest.skip(f"torch's byte kernel needs AVX2; this processor has {capability}")
    picture = np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)
    channels_first = torch.from_numpy(picture).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(channels_first, (side, side), mode="bilinear", antialias=True)
    assert np.array_equal(stretch(picture, side), expected[0].permute(1, 2, 0).numpy())


def test_a_flat_picture_stays_flat() -> None:
    for level in (0, 1, 127, 254, 255):
        assert (stretch(np.full((313, 200, 3), level, np.uint8), 256) == level).all()


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize(("width", "height"), [(512, 400), (517, 403)])
def test_averages_stand_for_the_pixels_that_they_were_made_of(scale: int, width: int, height: int) -> None:
    x, y = np.arange(width) / width, np.arange(height)[:, np.newaxis] / height
    whole = np.stack(
        [255 * x + 0 * y, 255 * y + 0 * x, 127.5 + 60 * np.sin(9 * x) + 60 * np.cos(7 * y)], axis=2
    )
    # What is missing of the last averages repeats the edge, as a JPEG file's own padding does.
    padded = np.pad(whole, ((0, -height % scale), (0, -width % scale), (0, 0)), mode="edge")
    rows, columns = padded.shape[0] // scale, padded.shape[1] // scale
    averages = padded.reshape(rows, scale, columns, scale, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    seen = stretch(averages, 80, scale, (width, height)).astype(int)
    difference = np.abs(seen - stretch(whole.round().astype(np.uint8), 80))
    assert difference.max() <= 1
    assert difference.mean() < 0.3


def test_a_flat_picture_stays_flat_from_averages() -> None:
    for level in (0, 1, 127, 254, 255):
        assert (stretch(np.full((100, 157, 3), level, np.uint8), 48, 2, (313, 200)) == level).all()
