"""Labels: plates with a text and a score, where they hide neither each other nor a mark."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from math import ceil, floor

from PIL import Image, ImageDraw, ImageStat

from service.client import Segment
from service.overlay.colours import Colour, ink_on
from service.overlay.fonts import Font, Fonts

# Of the picture's width.
_WIDEST = 0.45
# How much a place costs by what is there already, 0..255.
_PLATE, _SMALL_SEGMENT = 255, 60

Box = tuple[float, float, float, float]
Whole = tuple[int, int, int, int]


class Labels:
    """Writes labels on one picture, and remembers where something is that they must not hide."""

    def __init__(self, canvas: Image.Image, font_px: int) -> None:
        self._size = canvas.size
        self._pen = ImageDraw.Draw(canvas)
        self._font_px = font_px
        self._fonts = Fonts(font_px)
        self._pad_px = max(2, font_px // 4)
        # 8-bit grey, the picture's size: what each pixel costs.
        self._taken = Image.new("L", canvas.size)

    def reserve(self, box: Whole, cost: int = _PLATE) -> None:
        """Keep labels off `box`, whose right and lower side are outside."""
        self._taken.paste(cost, box)

    def reserve_if_small(self, box_xyxy: Box) -> None:
        """Keep labels off a segment that one of them would hide altogether, where there is room."""
        width, height = box_xyxy[2] - box_xyxy[0], box_xyxy[3] - box_xyxy[1]
        if width < 5 * self._font_px and height < 3 * self._font_px:
            self.reserve(_whole(box_xyxy), _SMALL_SEGMENT)

    def write(self, segment: Segment, substitute: str, colour: Colour) -> None:
        """A plate with the segment's label and score by its box; `substitute` where no font has the label."""
        font, label = self._fonts.legible(segment.label)
        score = f"{segment.score:.2f}"
        whole = self._fitted(label or (substitute if segment.label else ""), score, font)
        _, top, _, bottom = self._pen.textbbox((0, 0), "dg", font=font)
        # Whole pixels: between them, Pillow loses the topmost row of some letters.
        height = ceil(bottom - top) + self._pad_px
        sizes = {
            text: (ceil(self._pen.textlength(text, font=font)) + 2 * self._pad_px, height)
            for text in (whole, score)
        }
        text, plate = self._place(segment.box_xyxy, sizes)
        self.reserve(plate)
        x0, y0, x1, y1 = plate
        self._pen.rounded_rectangle((x0, y0, x1 - 1, y1 - 1), radius=self._pad_px, fill=colour)
        at = (x0 + self._pad_px, y0 + self._pad_px // 2 - floor(top))
        self._pen.text(at, text, font=font, fill=ink_on(colour))

    def _fitted(self, label: str, score: str, font: Font) -> str:
        """Label and score; a label that is too long is cut, the score never."""
        widest = _WIDEST * self._size[0] - 2 * self._pad_px

        def text(end: int) -> str:
            cut = label if end == len(label) else f"{label[:end].rstrip()}…"
            return f"{cut} {score}" if end else score

        if self._pen.textlength(text(len(label)), font=font) <= widest:
            return text(len(label))
        ends = range(len(label))
        fitting = bisect_right(ends, widest, key=lambda end: self._pen.textlength(text(end), font=font))
        return text(max(0, fitting - 1))

    def _place(self, box_xyxy: Box, sizes: Mapping[str, tuple[int, int]]) -> tuple[str, Whole]:
        """The text and its plate: the first of `sizes` (width, height) and place by the box that is free.

        Where none is, the one that hides least.
        """
        costs: list[tuple[float, int, str, Whole]] = []
        for text, (width, height) in sizes.items():
            for x, y in _places(_whole(box_xyxy), width, height):
                left = min(max(0, x), max(0, self._size[0] - width))
                top = min(max(0, y), max(0, self._size[1] - height))
                plate = (left, top, left + width, top + height)
                cost = ImageStat.Stat(self._taken.crop(plate)).sum[0]
                if not cost:
                    return text, plate
                costs.append((cost, len(costs), text, plate))
        return min(costs)[2:]


def _places(box: Whole, width: int, height: int) -> Iterator[tuple[int, int]]:
    """Top left corners, the best first: above the box, in it, below it, beside it, down its left side."""
    x0, y0, x1, y1 = box
    for y in (y0 - height, y0, y1, y1 - height, y0 - 2 * height, y1 + height):
        yield x0, y
        yield x1 - width, y
    yield x1, y0
    yield x0 - width, y0
    for step in range(1, min(12, (y1 - y0) // height)):
        yield x0, y0 + step * height


def _whole(box: Box) -> Whole:
    """The pixels that the box touches; its right and lower side are outside."""
    return (floor(box[0]), floor(box[1]), floor(box[2]) + 1, floor(box[3]) + 1)
