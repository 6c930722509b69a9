"""Text -> tokens, with the artefact's tokenizer.json."""

import html
from collections.abc import Mapping
from pathlib import Path

import ftfy
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer


class TextTokenizer:
    """CLIP's byte-pair tokens, cut and padded to a context. Thread-safe."""

    def __init__(self, file: Path, context_length: int, ids: Mapping[str, int]) -> None:
        """`file` is in the `tokenizers` library's format; `ids` has "start", "end" and "padding".

        Raises ValueError when the file cannot be read.
        """
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"{file} is not a tokenizer: {error}") from error
        self._start, self._end, self._padding = ids["start"], ids["end"], ids["padding"]
        self._context_length = context_length

    def __call__(self, text: str) -> NDArray[np.int32]:
        """[1, context_length] int32: start, the text's tokens, end, padding; a cut text still ends."""
        words = self._tokenizer.encode(clean(text), add_special_tokens=False).ids
        ids = [self._start, *words[: self._context_length - 2], self._end]
        tokens = np.full((1, self._context_length), self._padding, np.int32)
        tokens[0, : len(ids)] = ids
        return tokens


def clean(text: str) -> str:
    """CLIP's cleaning: mend the encoding, unescape HTML twice, collapse white space, lower the case."""
    mended = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(mended.split()).lower()
