"""Fonts: which one can show a label, and what it can show of it."""

import unicodedata
from collections.abc import Iterator

from PIL import ImageFont

# Fonts of common systems with more letters than Pillow's own, which knows ASCII and little else.
_NAMES = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial Unicode.ttf",
    "arial.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "Hiragino Sans GB.ttc",
    "msyh.ttc",
)
# A code point that is no character: every font shows what it shows for one it has not.
_NO_CHARACTER = "\U0010ffff"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Fonts:
    """Pillow's font and those of the system, at one size. System fonts are looked for when one is needed."""

    def __init__(self, size_px: int) -> None:
        self._size_px = size_px
        self._found: list[Font] = [ImageFont.load_default(size=size_px)]
        self._to_find = list(_NAMES)
        self._legible: dict[str, tuple[Font, str]] = {}

    def legible(self, label: str) -> tuple[Font, str]:
        """A font and what it can show of the label, on one line.

        All of it, else it without accents, else those of its characters that are there: perhaps none.
        """
        if label not in self._legible:
            self._legible[label] = self._choose(label)
        return self._legible[label]

    def _choose(self, label: str) -> tuple[Font, str]:
        line = " ".join("".join(each if each.isprintable() else " " for each in label).split())
        letters = unicodedata.normalize("NFKD", line)
        plain = "".join(each for each in letters if not unicodedata.combining(each))
        for text in (line, plain):
            for font in self._fonts():
                if _shown(text, font) == text:
                    return font, text
        shown = [(_shown(plain, font).strip(), font) for font in self._fonts()]
        text, font = max(shown, key=lambda pair: len(pair[0]))
        return font, text

    def _fonts(self) -> Iterator[Font]:
        yield from self._found
        while self._to_find:
            try:
                self._found.append(ImageFont.truetype(self._to_find.pop(0), size=self._size_px))
            except OSError:
                continue
            yield self._found[-1]


def _shown(text: str, font: Font) -> str:
    """The characters of `text` that the font has."""
    missing = bytes(font.getmask(_NO_CHARACTER))
    return "".join(each for each in text if each.isspace() or bytes(font.getmask(each)) != missing)
