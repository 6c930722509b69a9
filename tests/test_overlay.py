"""The drawing of an answer: what of the prompts and the segments is where, to the pixel."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageDraw

from service.client import Answer, Segment
from service.overlay import draw
from service.overlay.colours import colour_of
from service.overlay.marks import NEGATIVE, POSITIVE
from tests.pictures import encoded

SIZE = (600, 400)
GREY = (128, 128, 128)
WHITE = (255, 255, 255)
Box = tuple[float, float, float, float]


def _mask(*boxes: Box, holes: tuple[Box, ...] = (), size: tuple[int, int] = SIZE) -> dict[str, Any]:
    """A mask of rectangles; x1 and y1 are outside."""
    mask = Image.new("L", size)
    pen = ImageDraw.Draw(mask)
    for value, rectangles in ((255, boxes), (0, holes)):
        for x0, y0, x1, y1 in rectangles:
            pen.rectangle((x0, y0, x1 - 1, y1 - 1), fill=value)
    return {
        "format": "png",
        "size": [size[1], size[0]],
        "png": base64.b64encode(encoded(mask, "PNG")).decode(),
    }


def _segment(box: Box, score: float = 0.9, label: str = "", mask: dict[str, Any] | None = None) -> Segment:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return Segment(score, box, int(area) if mask else 0, label, mask)


def _drawn(
    *results: list[Segment], prompts: list[Any] | None = None, size: tuple[int, int] = SIZE
) -> Image.Image:
    picture = encoded(Image.new("RGB", size, GREY), "PNG")
    return draw(picture, Answer("demo", "", *size, tuple(map(tuple, results)), {}, {}), prompts or [])


def _where(drawn: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """8-bit grey: 255 where the drawing has exactly this colour."""
    difference = ImageChops.difference(drawn, Image.new("RGB", drawn.size, colour))
    red, green, blue = difference.split()
    return ImageChops.lighter(ImageChops.lighter(red, green), blue).point(lambda value: 255 * (value == 0))


def _alike(drawn: Image.Image, at: tuple[int, int], colour: tuple[int, int, int]) -> bool:
    """Whether the pixel has the colour, as far as smooth edges leave it."""
    pixel = drawn.getpixel(at)
    assert isinstance(pixel, tuple)
    return all(abs(one - other) < 50 for one, other in zip(pixel, colour, strict=True))


def _changed(drawn: Image.Image) -> tuple[int, int, int, int] | None:
    """The box around what is not the picture's grey any more."""
    return ImageChops.difference(drawn, Image.new("RGB", drawn.size, GREY)).getbbox()


def test_a_mask_is_filled_and_outlined_where_it_is() -> None:
    drawn = _drawn(
        [_segment((100, 100, 300, 300), mask=_mask((100, 100, 300, 300), holes=((180, 180, 220, 220),)))]
    )
    assert drawn.size == SIZE
    veiled = drawn.getpixel((150, 250))
    assert veiled not in (GREY, colour_of(0)), "inside the mask the picture shows through"
    assert drawn.getpixel((200, 200)) == GREY, "a hole"
    assert drawn.getpixel((400, 200)) == GREY, "outside of it"
    assert drawn.getpixel((301, 200)) == colour_of(0), "the outline"
    assert drawn.getpixel((302, 200)) == WHITE, "the outline's rim"


def test_segments_of_one_prompt_differ_in_colour_and_those_of_several_have_their_prompts() -> None:
    boxes: list[Box] = [(20, 100, 120, 200), (220, 100, 320, 200), (420, 100, 520, 200)]
    segments = [_segment(box, 0.9 - index / 10) for index, box in enumerate(boxes)]
    one = _drawn(segments)
    assert [one.getpixel((box[0], 190)) for box in boxes] == [colour_of(0), colour_of(1), colour_of(2)]
    several = _drawn(segments[:2], segments[2:])
    assert [several.getpixel((box[0], 190)) for box in boxes] == [colour_of(0), colour_of(0), colour_of(1)]


def test_what_lies_within_another_stays_visible() -> None:
    inner, outer = (200, 150, 300, 250), (100, 100, 400, 350)
    for scores in ((0.9, 0.5), (0.5, 0.9)):
        drawn = _drawn(
            [_segment(inner, scores[0], mask=_mask(inner))], [_segment(outer, scores[1], mask=_mask(outer))]
        )
        assert drawn.getpixel((199, 240)) == colour_of(0), "the inner one's outline"


@pytest.mark.parametrize(("positive", "colour"), [(True, POSITIVE), (False, NEGATIVE)])
def test_a_point_is_a_disc_with_its_sign(positive: bool, colour: tuple[int, int, int]) -> None:
    prompts = [{"points": [{"x": 600.4, "y": 400.2, "positive": positive}]}]
    drawn = _drawn([], prompts=prompts, size=(1200, 800))
    assert _alike(drawn, (600, 400), WHITE), "the sign's middle"
    assert _alike(drawn, (603, 400), WHITE), "its horizontal bar"
    assert _alike(drawn, (600, 403), WHITE if positive else colour), "a plus has a vertical bar"
    assert _alike(drawn, (604, 404), colour), "the disc"
    assert _alike(drawn, (610, 400), WHITE), "its rim"
    changed = _changed(drawn)
    assert changed and changed[0] > 580 and changed[2] <= 620, "and nothing else is drawn"


def test_an_absent_sign_is_positive() -> None:
    assert _where(_drawn([], prompts=[{"points": [{"x": 300, "y": 200}]}]), POSITIVE).getbbox()


def _along(drawn: Image.Image, box: Box) -> list[tuple[int, ...]]:
    """The pixels of the box's left side."""
    pixels = [drawn.getpixel((int(box[0]), y)) for y in range(int(box[1]) + 1, int(box[3]))]
    return [pixel for pixel in pixels if isinstance(pixel, tuple)]


@pytest.mark.parametrize(
    ("prompt", "colour"),
    [
        (lambda box: {"box": box}, colour_of(0)),
        (lambda box: {"exemplars": [{"box": box}]}, POSITIVE),
        (lambda box: {"text": "a", "exemplars": [{"box": box, "positive": False}]}, NEGATIVE),
    ],
)
def test_a_prompts_box_is_dashed(
    prompt: Callable[[list[float]], dict[str, Any]], colour: tuple[int, int, int]
) -> None:
    box = (100.0, 50.0, 500.0, 350.0)
    drawn = _drawn([], prompts=[prompt(list(box))])
    side = _along(drawn, box)
    assert side.count(colour) > 100, "dashes"
    assert side.count(GREY) > 40, "gaps"
    assert drawn.getpixel((300, 200)) == drawn.getpixel((50, 200)) == GREY
    signs = _where(drawn.crop((480, 30, 520, 70)), colour).getbbox()
    assert signs, "its corner"


def test_every_prompts_box_has_its_segments_colour() -> None:
    boxes: list[Box] = [(50, 100, 200, 300), (300, 100, 500, 300)]
    found = [(box[0] + 20, box[1] + 20, box[2] - 20, box[3] - 20) for box in boxes]
    drawn = _drawn(*[[_segment(box)] for box in found], prompts=[{"box": list(box)} for box in boxes])
    assert [colour_of(index) in _along(drawn, box) for index, box in enumerate(boxes)] == [True, True]
    assert colour_of(1) not in _along(drawn, boxes[0])


def test_a_prompts_mask_has_a_dashed_contour() -> None:
    box = (100, 100, 400, 300)
    drawn = _drawn([], prompts=[{"mask": _mask(box)}])
    side = _along(drawn, (99, 100, 400, 300))
    assert side.count(colour_of(0)) > 40 and side.count(GREY) > 40
    assert drawn.getpixel((250, 200)) == GREY, "it is not filled"


def test_marks_outside_of_the_picture_are_left_out_and_boxes_clipped_to_it() -> None:
    far = 1e12
    outside = [
        {"points": [{"x": -40, "y": 20}, {"x": far, "y": far}]},
        {"box": [-far, -far, -1, -1]},
        {"exemplars": [{"box": [700, 0, 800, 100]}, {"point": {"x": 20, "y": -far}}]},
    ]
    assert _changed(_drawn([], [], [], prompts=outside)) is None
    drawn = _drawn([], prompts=[{"box": [-far, 100, far, 300]}])
    assert _changed(drawn) is not None
    assert drawn.getpixel((300, 200)) == GREY


def test_of_an_objects_candidates_the_best_is_filled_and_the_others_outlined() -> None:
    best, other = (50, 100, 200, 300), (300, 100, 450, 300)
    segments = [_segment(best, 0.9, mask=_mask(best)), _segment(other, 0.5, mask=_mask(other))]
    drawn = _drawn(segments, prompts=[{"points": [{"x": 60, "y": 110}]}])
    assert drawn.getpixel((125, 200)) != GREY
    assert drawn.getpixel((375, 200)) == GREY
    assert drawn.getpixel((299, 200)) == colour_of(1)
    as_concept = _drawn(segments, prompts=[{"text": "a"}])
    assert as_concept.getpixel((375, 200)) != GREY


def _plate(drawn: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    box = _where(drawn, colour).getbbox()
    assert box
    return box


def test_labels_do_not_hide_each_other() -> None:
    box = (200, 150, 400, 300)
    texts = ["truck", "vehicle", "car", "lorry", "van", "pickup"]
    drawn = _drawn(*[[_segment(box, 0.9 - index / 10, text)] for index, text in enumerate(texts)])
    # The first one's box is drawn over the others': what is left of them is their plate.
    plates = [_plate(drawn, colour_of(index)) for index in range(1, len(texts))]
    for index, one in enumerate(plates):
        assert one[2] - one[0] > 30 and one[3] - one[1] > 8
        for other in plates[index + 1 :]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_labels_keep_off_the_points() -> None:
    # Where the label of this box goes first.
    at = {"x": 110, "y": 95}
    drawn = _drawn([_segment((100, 100, 300, 300), label="truck")], prompts=[{"points": [at]}])
    assert _alike(drawn, (110, 95), WHITE), "the sign"
    assert _alike(drawn, (113, 92), POSITIVE), "the disc"
    assert _where(drawn.crop((240, 85, 299, 98)), colour_of(0)).getbbox(), "the label, at the next place"


def test_a_label_is_whole_at_every_edge() -> None:
    sizes = set()
    for x, y in [(0, 0), (580, 0), (0, 380), (580, 380), (300, 200)]:
        box = (x, y, x + 20, y + 20)
        # The second one: its box lies under the first's.
        plate = _plate(_drawn([_segment(box, 0.9, "a")], [_segment(box, 0.5, "truck")]), colour_of(1))
        sizes.add((plate[2] - plate[0], plate[3] - plate[1]))
    assert len(sizes) == 1, sizes


def test_a_label_is_as_sharp_between_pixels() -> None:
    whole, between = (
        _drawn([_segment((x, y, 400, 300), 0.77, "truck 7")]).crop((90, 70, 300, 100))
        for x, y in ((100, 100), (100.6, 100.6))
    )
    assert whole.tobytes() == between.tobytes()


def test_a_long_label_is_cut_and_keeps_its_score() -> None:
    box = (50, 200, 550, 350)
    drawn = _drawn([_segment(box, 0.9, "a")], [_segment(box, 0.5, "a very long label " * 50)])
    x0, _, x1, _ = _plate(drawn, colour_of(1))
    assert SIZE[0] * 0.35 < x1 - x0 <= SIZE[0] * 0.45
    other = _drawn([_segment(box, 0.9, "a")], [_segment(box, 0.6, "a very long label " * 50)])
    assert ImageChops.difference(drawn, other).getbbox(), "the scores differ"


def test_a_label_is_one_line_of_what_the_fonts_have() -> None:
    box = (50, 200, 550, 350)

    def drawn(label: str) -> bytes:
        return _drawn([_segment(box, label=label)]).tobytes()

    assert drawn("red\n\x1b  car\x00") == drawn("red car")
    # Cuneiform, which none of the fonts has.
    assert drawn("red \U00012000") == drawn("red")
    assert drawn("\U00012000") == drawn("prompt 1")
    assert drawn("\U00012000") != drawn("")


@pytest.mark.parametrize("size", [(1, 1), (6, 4), (320, 240), (3000, 20), (20, 3000), (3000, 2000)])
def test_it_draws_on_any_size(size: tuple[int, int]) -> None:
    box = (0.0, 0.0, float(size[0]), float(size[1]))
    mask = _mask((0, 0, size[0], size[1]), size=size)
    points = [{"x": size[0] / 2, "y": size[1] / 2}, {"x": size[0], "y": 0, "positive": False}]
    prompts = [
        {"text": "a", "exemplars": [{"box": list(box)}]},
        {"box": list(box), "points": points, "mask": mask},
    ]
    segment = _segment(box, label="truck", mask=mask)
    drawn = _drawn([segment] * 10, [segment], prompts=prompts, size=size)
    assert drawn.size == size
    assert _changed(drawn) == (0, 0, *size)


def test_it_follows_the_pictures_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.new("RGB", (80, 40), "white"), exif=exif.tobytes())
    assert draw(turned, Answer("demo", "", 40, 80, ((),), {}, {})).size == (40, 80)


@pytest.mark.parametrize("file", [b"", b"no picture", encoded(Image.new("RGB", SIZE))[:400]])
def test_a_file_that_cannot_be_read_is_an_os_error(file: bytes) -> None:
    with pytest.raises(OSError, match=r"(?i)picture|read|truncated"):
        draw(file, Answer("demo", "", *SIZE, ((),), {}, {}))
