"""A mask as a prompt: every encoding becomes the decoder's logits, and every defect is refused by name."""

import zlib
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.worker import masks
from service.worker.mask_prompt import binary_of, logits_of
from tests.worker.conftest import picture
from tests.worker.files import chunk, deep_png, png_file, saved

Array = NDArray[Any]
PATH = "prompts[3].mask"
FORMATS = (pb.MASK_FORMAT_RLE, pb.MASK_FORMAT_PNG, pb.MASK_FORMAT_POLYGON)
FORM = np.zeros((12, 20), np.uint8)
FORM[2:9, 3:15] = 1
FORM[4:6, 5:9] = 0
FORM[10:, 18:] = 1


def rle(counts: str, height: int = 12, width: int = 20) -> pb.Mask:
    return pb.Mask(height=height, width=width, rle=counts)


def png(file: bytes, height: int = 12, width: int = 20) -> pb.Mask:
    return pb.Mask(height=height, width=width, png=file)


def rings(*corners: Any, holes: tuple[int, ...] = (), height: int = 12, width: int = 20) -> pb.Mask:
    polygon = pb.Polygon()
    for index, ring in enumerate(corners):
        polygon.rings.add(xy=np.ravel(ring).tolist(), hole=index in holes)
    return pb.Mask(height=height, width=width, polygon=polygon)


def box(x0: float, y0: float, x1: float, y1: float) -> list[float]:
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def logits(values: Array) -> pb.Mask:
    halves = values.astype("<f2")
    return pb.Mask(height=halves.shape[0], width=halves.shape[1], logits=halves.tobytes())


def refused(mask: pb.Mask, kind: Kind = Kind.INVALID_ARGUMENT) -> str:
    with pytest.raises(ServiceError) as error:
        logits_of(PATH, mask, 16)
    assert error.value.kind == kind
    assert error.value.detail.startswith(PATH)
    return error.value.detail


@pytest.mark.parametrize("encoding", FORMATS)
def test_every_encoding_of_a_mask_gives_the_same_logits(encoding: "pb.MaskFormat.ValueType") -> None:
    """The share of foreground, as torch resizes it, on a scale from -10 to 10."""
    mask = masks.encode(FORM, encoding)
    assert np.array_equal(binary_of(PATH, mask), FORM)
    for side in (7, 16, 48):
        found = logits_of(PATH, mask, side)
        assert (found.shape, found.dtype) == ((side, side), np.float32)
        source = torch.from_numpy(FORM)[None, None].float()
        share = torch.nn.functional.interpolate(source, (side, side), mode="bilinear", antialias=True)[0, 0]
        assert np.abs(found - (20 * share.numpy() - 10)).max() < 1e-4


def test_a_mask_of_the_decoders_own_size_keeps_its_edges() -> None:
    square = np.zeros((16, 16), np.uint8)
    square[3:9, 5:7] = 1
    found = logits_of(PATH, masks.encode(square, pb.MASK_FORMAT_RLE), 16)
    assert np.array_equal(found, np.where(square, np.float32(10), np.float32(-10)))
    full = masks.encode(np.ones((5, 900), np.uint8), pb.MASK_FORMAT_PNG)
    assert (logits_of(PATH, full, 16) == 10).all()


def test_a_mask_stands_for_the_whole_image_whatever_its_size() -> None:
    large = np.kron(FORM, np.ones((30, 50), np.uint8))
    small, same = (logits_of(PATH, masks.encode(each, pb.MASK_FORMAT_RLE), 16) for each in (FORM, large))
    assert np.abs(small - same).mean() < 1


@pytest.mark.parametrize("encoding", FORMATS)
def test_an_empty_mask_is_refused(encoding: "pb.MaskFormat.ValueType") -> None:
    empty = masks.encode(np.zeros((12, 20), np.uint8), encoding)
    assert not binary_of(PATH, empty).any()
    assert "has no foreground" in refused(empty)


def test_logits_of_the_decoders_size_are_taken_to_the_bit() -> None:
    values = np.random.default_rng(5).normal(0, 12, (16, 16)).astype(np.float16)
    values[0, :5] = (0.0, -0.0, 6e-8, 65504, -65504)
    found = logits_of(PATH, logits(values), 16)
    assert found.dtype == np.float32
    assert np.array_equal(found.view(np.int32), values.astype(np.float32).view(np.int32))
    assert np.array_equal(binary_of(PATH, logits(values)), values > 0)
    assert (logits_of(PATH, logits(np.full((16, 16), -3.0)), 16) == -3).all(), "they need no foreground"


def test_logits_of_another_size_are_resized_bilinearly() -> None:
    found = logits_of(PATH, logits(np.array([[-1.0, 3.0], [-3.0, 1.0]])), 4)
    assert found.tolist() == [[-1, 0, 2, 3], [-1.5, -0.5, 1.5, 2.5], [-2.5, -1.5, 0.5, 1.5], [-3, -2, 0, 1]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_must_be_finite(value: float) -> None:
    values = np.zeros((16, 16))
    values[3, 4] = value
    assert f"{PATH}.logits has values that are no finite numbers" in refused(logits(values))


# A foreground run from 100 to 239 is "T3\4" in a mask of 12 x 20.
RUNS = {
    "T3\\4": "",
    "": "has runs of 0 pixels in all; prompts[3].mask.size [12, 20] needs 240",
    "T3": "has runs of 100 pixels in all",
    "T3\\41": "has runs of 241 pixels in all",
    "T3 4": "is not in COCO's compressed format",
    "T3\\4 ": "is not in COCO's compressed format",
    "T3\\4\0": "is not in COCO's compressed format",
    "T3\\4é": "is not in COCO's compressed format",
    "T3\\4p": "is not in COCO's compressed format",
    "T3T": "is not in COCO's compressed format",
    "oooooooo0": "is not in COCO's compressed format",
    "O": "has a run of less than nothing",
    "T3\\4O": "has a run of less than nothing",
    "oooooo?": "has a run of less than nothing",
    "PPPPPP1": "or of more than the mask",
    "T3\\40": "",
    "oooooo?" * 10_000: "has a run of less than nothing",
    "1" * 100_000: "has a run of less than nothing, or of more than the mask",
}


@pytest.mark.parametrize("counts", RUNS, ids=range(len(RUNS)))
def test_counts_that_do_not_add_up_are_refused(counts: str) -> None:
    if sentence := RUNS[counts]:
        detail = refused(rle(counts))
        assert detail.startswith(f"{PATH}.counts ") and sentence in detail
    else:
        assert np.flatnonzero(binary_of(PATH, rle(counts)).T).tolist() == list(range(100, 240))


def test_counts_are_read_as_coco_reads_them() -> None:
    random = np.random.default_rng(2)
    for height, width in ((1, 1), (1, 900), (700, 1), (333, 512), (2000, 1500)):
        mask = (random.random((height, width)) < random.random()).astype(np.uint8)
        mask[: height // 2] = height % 2
        encoded = coco.encode(np.asfortranarray(mask))
        assert np.array_equal(binary_of(PATH, rle(encoded["counts"].decode(), height, width)), mask)


LEVELS = np.where(FORM, np.uint8(128), np.uint8(127))
OPAQUE = np.full_like(LEVELS, 255)
GREY_PNGS = {
    "8 bits": saved(Image.fromarray(LEVELS)),
    "1 bit": saved(Image.fromarray(FORM * np.uint8(255)).convert("1")),
    "16 bits": deep_png(LEVELS[..., np.newaxis].astype(np.uint16) * 257),
    "a palette of greys": saved(Image.fromarray(LEVELS).convert("P")),
    "grey as RGB": saved(Image.fromarray(LEVELS).convert("RGB")),
    "opaque alpha": saved(Image.fromarray(np.stack((LEVELS, OPAQUE), axis=2))),
    "opaque RGBA": saved(Image.fromarray(np.stack((LEVELS,) * 3 + (OPAQUE,), axis=2))),
}


@pytest.mark.parametrize("name", GREY_PNGS)
def test_a_png_of_greys_is_foreground_above_127(name: str) -> None:
    assert np.array_equal(binary_of(PATH, png(GREY_PNGS[name])), FORM)


_RED = Image.new("P", (20, 12), 1)
_RED.putpalette([0, 0, 0, 128, 0, 0])
_WHOLE = saved(Image.fromarray(LEVELS))
_BOMB = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26)))
BAD_PNGS = {
    "a palette of colours": (saved(_RED), ".png has colours: send grey levels."),
    "colours": (saved(Image.new("RGB", (20, 12), "red")), ".png has colours"),
    "transparency": (
        saved(Image.fromarray(np.stack((OPAQUE, LEVELS), axis=2))),
        ".png has transparent pixels",
    ),
    "a transparent grey": (saved(Image.fromarray(LEVELS), transparency=127), ".png has transparent pixels"),
    "another size": (picture(12, 20, mode="L"), ".png is 12 x 20 pixels (width x height), not the 20 x 12"),
    "a size that cannot be": (
        png_file(2**30, 2**30, 8, 0, b""),
        ".png is 1,073,741,824 x 1,073,741,824 pixels",
    ),
    "a JPEG": (picture(20, 12, "JPEG", "L"), ".png cannot be read: PNG is expected."),
    "nothing": (b"", ".png cannot be read"),
    "half a PNG": (_WHOLE[: len(_WHOLE) // 2], ".png is a damaged or truncated PNG file"),
    "text without end": (png_file(20, 12, 8, 0, bytes(252), _BOMB), ".png is a damaged PNG file"),
    "zeros and ones": (saved(Image.fromarray(FORM)), " has no foreground (a PNG's is above 127)"),
}


@pytest.mark.parametrize("name", BAD_PNGS)
def test_another_png_is_refused(name: str) -> None:
    file, sentence = BAD_PNGS[name]
    assert refused(png(file)).startswith(PATH + sentence)


def test_a_pixel_belongs_to_a_polygon_if_its_centre_lies_inside() -> None:
    # The two meet in a diagonal of centres, which belong to what lies right of it.
    below, above = [0, 0, 5, 5, 0, 5], [0, 0, 5, 0, 5, 5]
    assert np.array_equal(binary_of(PATH, rings(below, height=5, width=5)), np.tri(5, k=-1))
    assert np.array_equal(binary_of(PATH, rings(above, height=5, width=5)), np.triu(np.ones((5, 5))))
    assert binary_of(PATH, rings(box(2.4, 3.5, 4.6, 5.4))).sum() == 6
    assert not binary_of(PATH, rings(box(2.6, 3.6, 3.4, 9))).any()


def test_rings_add_up_and_holes_take_away_whatever_their_sense() -> None:
    for turn in (1, -1):
        outer = np.reshape(box(1, 1, 9, 9), (4, 2))[::turn]
        other = np.reshape(box(5, 5, 15, 11), (4, 2))
        hole, island = np.reshape(box(2, 2, 6, 4), (4, 2))[::-turn], box(3, 2, 4, 3)
        expected = np.zeros((12, 20), bool)
        expected[1:9, 1:9] = expected[5:11, 5:15] = True
        expected[2:4, 2:6] = False
        expected[2, 3] = True
        assert np.array_equal(binary_of(PATH, rings(outer, other, hole, island, holes=(2,))), expected)


def test_both_parts_of_a_ring_that_crosses_itself_count() -> None:
    found = binary_of(PATH, rings([2, 2, 14, 8, 14, 2, 2, 8]))
    assert found[:, 2:8].sum() == found[:, 8:14].sum() > 0


def test_what_leaves_the_mask_is_cut_off() -> None:
    assert np.array_equal(
        binary_of(PATH, rings(box(-3e38, -7, 5.2, 3e38))), np.arange(20) < np.full((12, 1), 5)
    )
    for outside in (box(20, 0, 30, 12), box(-9, 0, 0, 12), box(0, 12, 20, 15), box(0, -5, 20, 0)):
        assert "has no foreground" in refused(rings(outside))
    assert "has no foreground" in refused(rings(box(0, 0, 20, 12), box(0, 0, 20, 12), holes=(1,)))
    assert "has no foreground" in refused(pb.Mask(height=12, width=20, polygon=pb.Polygon()))


def test_a_polygon_that_would_take_too_long_is_refused() -> None:
    zigzag = np.stack((np.arange(10_000) % 2, np.arange(10_000) % 2 * 2_000), axis=1)
    detail = refused(rings(zigzag, height=2_000, width=2_000), Kind.PAYLOAD_TOO_LARGE)
    assert detail.startswith(f"{PATH}.rings cross 20,000,000 rows of pixels") and "1,000,000" in detail
