"""A mask survives each of its encodings."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.worker import masks

Array = NDArray[Any]


def _noise(count: int) -> list[Array]:
    random = np.random.default_rng(3)
    sizes = random.integers(1, 25, (count, 2))
    return [(random.random(tuple(size)) < random.random()).astype(np.uint8) for size in sizes]


def _ring() -> Array:
    mask = np.zeros((60, 90), np.uint8)
    mask[10:50, 20:80] = 1
    mask[20:40, 30:70] = 0
    mask[25:30, 45:50] = 1
    return mask


MASKS = [
    np.zeros((5, 7), np.uint8),
    np.ones((7, 5), np.uint8),
    _ring(),
    np.eye(9, dtype=np.uint8),
    *_noise(100),
]


def _filled(polygon: pb.Polygon, height: int, width: int) -> Array:
    """Pixels whose centre lies inside an odd number of rings; edges run along the grid."""
    crossings = np.zeros((height, width + 1), int)
    for ring in polygon.rings:
        corners = np.array(ring.xy).reshape(-1, 2).astype(int)
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            assert (x0 == x1) != (y0 == y1)
            if x0 == x1:
                crossings[min(y0, y1) : max(y0, y1), x0] += 1
    filled: Array = np.cumsum(crossings, axis=1)[:, :width] % 2
    return filled


def _area(ring: pb.Ring) -> float:
    x, y = np.array(ring.xy).reshape(-1, 2).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


@pytest.mark.parametrize("mask", MASKS)
def test_rle_gives_the_mask_back(mask: Array) -> None:
    message = masks.encode(mask, pb.MASK_FORMAT_RLE)
    assert (message.height, message.width) == mask.shape
    assert np.array_equal(coco.decode({"size": mask.shape, "counts": message.rle}), mask)
    assert masks.encode(mask, pb.MASK_FORMAT_UNSPECIFIED) == message


@pytest.mark.parametrize("mask", MASKS)
def test_png_gives_the_mask_back(mask: Array) -> None:
    message = masks.encode(mask, pb.MASK_FORMAT_PNG)
    with Image.open(io.BytesIO(message.png)) as image:
        assert (image.mode, image.size) == ("L", (message.width, message.height))
        assert np.array_equal(np.asarray(image), mask * 255)


@pytest.mark.parametrize("mask", MASKS)
def test_polygons_fill_to_the_mask_and_their_area_is_its_own(mask: Array) -> None:
    rings = masks.encode(mask, pb.MASK_FORMAT_POLYGON).polygon
    assert np.array_equal(_filled(rings, *mask.shape), mask)
    assert sum(-_area(ring) if ring.hole else _area(ring) for ring in rings.rings) == mask.sum()


def test_a_hole_is_a_ring_of_its_own_and_what_stands_in_it_another() -> None:
    rings = masks.polygon(_ring()).rings
    assert sorted((ring.hole, _area(ring)) for ring in rings) == [(False, 25), (False, 2400), (True, 800)]


def test_upscaling_is_bilinear_with_half_pixel_centres() -> None:
    logits = np.array([[-1.0, 3.0], [-3.0, 1.0]], np.float32)
    # Along a row of four, weights of the right pixel are 0, 1/4, 3/4, 1.
    rows = np.array([[-1, 0, 2, 3], [-1.5, -0.5, 1.5, 2.5], [-2.5, -1.5, 0.5, 1.5], [-3, -2, 0, 1]])
    mask = masks.upscale(logits, 4, 4)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, rows > 0), "zero is background"


def test_upscaling_reaches_any_shape() -> None:
    logits = np.full((8, 8), -1.0, np.float32)
    logits[:, 4:] = 1.0
    assert masks.upscale(logits, 32_768, 2).sum(axis=1).tolist() == [16_384, 16_384]
    assert masks.upscale(logits, 2, 1).tolist() == [[0, 1]]


def test_logits_are_little_endian_half_floats_within_their_range() -> None:
    message = masks.logits_message(np.array([[0.5, -2.0, 1e9]], np.float32))
    assert (message.height, message.width) == (1, 3)
    assert np.frombuffer(message.logits, "<f2").tolist() == [0.5, -2.0, 65504.0]
