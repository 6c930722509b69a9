"""Whatever the mask, each encoding gives it back; whatever the bytes, the answer is a mask or a refusal."""

from typing import Any

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pycocotools import mask as coco

from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.worker import masks
from service.worker.mask_prompt import binary_of, logits_of

Array = NDArray[Any]
PATH = "prompts[0].mask"
bounded = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])

FORMATS = st.sampled_from((pb.MASK_FORMAT_RLE, pb.MASK_FORMAT_PNG, pb.MASK_FORMAT_POLYGON))
SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, max_side=24)
SMALL = arrays.arrays(np.uint8, SHAPES, elements=st.integers(0, 1))
CHECKERS = np.indices((9, 14)).sum(axis=0, dtype=np.uint8) % 2


@st.composite
def blown_up(draw: st.DrawFn) -> Array:
    """A small mask in larger pixels: long runs, long edges."""
    small = draw(SMALL)
    factors = draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    return np.kron(small, np.ones(factors, np.uint8))


@bounded
@given(mask=SMALL | blown_up(), encoding=FORMATS)
@example(mask=CHECKERS, encoding=pb.MASK_FORMAT_POLYGON)
@example(mask=1 - CHECKERS, encoding=pb.MASK_FORMAT_RLE)
@example(mask=np.eye(7, dtype=np.uint8), encoding=pb.MASK_FORMAT_POLYGON)
@example(mask=np.ones((1, 3_000), np.uint8), encoding=pb.MASK_FORMAT_POLYGON)
@example(mask=np.zeros((3_000, 1), np.uint8), encoding=pb.MASK_FORMAT_RLE)
def test_a_mask_comes_back_from_every_encoding(mask: Array, encoding: "pb.MaskFormat.ValueType") -> None:
    message = pb.Mask.FromString(masks.encode(mask, encoding).SerializeToString())
    assert np.array_equal(binary_of(PATH, message), mask)


@bounded
@given(mask=SMALL, encoding=FORMATS, side=st.integers(1, 40))
def test_logits_of_any_mask_lie_between_the_ends(
    mask: Array, encoding: "pb.MaskFormat.ValueType", side: int
) -> None:
    mask[0, 0] = 1
    found = logits_of(PATH, masks.encode(mask, encoding), side)
    assert (found.shape, found.dtype) == ((side, side), np.float32)
    assert -10 <= found.min() <= found.max() <= 10
    if mask.all():
        assert (found == 10).all()


def test_the_longest_masks_come_back() -> None:
    mask = np.zeros((32_768, 120), np.uint8)
    mask[1:32_000, 50:119] = 1
    mask[14_000:14_001, 60:70] = 0
    for each in (mask, np.ascontiguousarray(mask.T)):
        for encoding in (pb.MASK_FORMAT_RLE, pb.MASK_FORMAT_PNG, pb.MASK_FORMAT_POLYGON):
            assert np.array_equal(binary_of(PATH, masks.encode(each, encoding)), each)


ALPHABET = st.characters(min_codepoint=48, max_codepoint=111)
HOSTILE = st.text(ALPHABET, max_size=40) | st.text(max_size=20)


@st.composite
def almost_right(draw: st.DrawFn) -> str:
    """A sound string with one character left out, put in or changed."""
    counts = masks.rle(draw(SMALL))
    place = draw(st.integers(0, len(counts)))
    return counts[:place] + draw(st.text(ALPHABET, max_size=2)) + counts[place + draw(st.integers(0, 2)) :]


@bounded
@given(counts=HOSTILE | almost_right(), shape=st.tuples(st.integers(1, 24), st.integers(1, 24)))
@example(counts="oooooooooooooooooooooooooooooooooooooooo0", shape=(3, 3))
@example(counts="oooooo?oooooo?oooooo?", shape=(3, 3))
@example(counts="PPPPPPPPPPPPP4", shape=(32_768, 3_000))
def test_hostile_counts_are_refused_or_read_as_coco_reads_them(counts: str, shape: tuple[int, int]) -> None:
    height, width = shape
    try:
        found = binary_of(PATH, pb.Mask(height=height, width=width, rle=counts))
    except ServiceError as error:
        assert error.kind == Kind.INVALID_ARGUMENT
        assert error.detail.startswith(f"{PATH}.counts ")
    else:
        # What passes is sound, so that COCO's own reader may see it.
        assert np.array_equal(found, coco.decode({"size": [height, width], "counts": counts}))


NUMBERS = (
    st.floats(-40, 40, width=32)
    | st.integers(-40, 40)
    | st.floats(width=32, allow_nan=False).filter(np.isfinite)
)
CORNERS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=9)


def _inside(corners: Array, x: Array, y: Array) -> Array:
    """Whether a line from each place to the left crosses the ring an odd number of times."""
    odd = np.zeros(np.broadcast_shapes(x.shape, y.shape), bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 != y1:
            odd ^= ((y0 <= y) != (y1 <= y)) & (x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x)
    return odd


@bounded
@given(rings=st.lists(st.tuples(CORNERS, st.booleans()), max_size=4), shape=SHAPES)
def test_a_polygon_holds_the_centres_in_more_rings_than_holes(
    rings: list[tuple[list[tuple[float, float]], bool]], shape: tuple[int, int]
) -> None:
    height, width = shape
    message, expected = pb.Mask(height=height, width=width, polygon=pb.Polygon()), np.zeros(shape, int)
    x, y = np.arange(width) + 0.5, np.arange(height)[:, np.newaxis] + 0.5
    for corners, hole in rings:
        ring = message.polygon.rings.add(xy=np.ravel(corners).tolist(), hole=hole)
        inside = _inside(np.array(ring.xy, np.float64).reshape(-1, 2), x, y).astype(int)
        expected += -inside if hole else inside
    assert np.array_equal(binary_of(PATH, message), expected > 0)


@bounded
@given(file=st.binary(max_size=60), head=st.sampled_from((b"", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")))
def test_any_bytes_for_a_png_are_refused_by_name(file: bytes, head: bytes) -> None:
    try:
        binary_of(PATH, pb.Mask(height=3, width=3, png=head + file))
    except ServiceError as error:
        assert error.kind == Kind.INVALID_ARGUMENT
        assert error.detail.startswith(f"{PATH}.png ")
