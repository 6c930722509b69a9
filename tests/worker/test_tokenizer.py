"""Tokens of the reference, and the edges of cleaning and cutting."""

import json
from pathlib import Path

import numpy as np
import pytest

from service.worker.tokenizer import TextTokenizer, clean

IDS = {"start": 49406, "end": 49407, "padding": 0}


def _tokenizer(folder: Path, context: int = 16) -> TextTokenizer:
    return TextTokenizer(folder / "tokenizer.json", context, IDS)


@pytest.mark.parametrize(("golden", "context"), [("s0_ctx16", 16), ("s0_ctx32", 32), ("s0_ctx77", 77)])
def test_tokens_equal_the_references(
    tokenizer_folder: Path, reference: Path, golden: str, context: int
) -> None:
    with np.load(reference / "goldens" / f"text_{golden}.npz") as outputs:
        expected, meta = outputs["tokens"], json.loads(str(outputs["__meta__"]))
    tokenize = _tokenizer(tokenizer_folder, context)
    assert np.array_equal(np.concatenate([tokenize(text) for text in meta["prompts"]]), expected)


def test_a_cut_text_ends_with_the_end_token(tokenizer_folder: Path) -> None:
    tokens = _tokenizer(tokenizer_folder)("dog " * 500)
    assert (tokens.shape, tokens.dtype) == ((1, 16), np.int32)
    assert tokens[0].tolist() == [49406, *[1929] * 14, 49407]


def test_a_text_is_padded_with_zeros(tokenizer_folder: Path) -> None:
    assert _tokenizer(tokenizer_folder)("dog")[0].tolist() == [49406, 1929, 49407, *[0] * 13]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  A  Red\n\tCar ", "a red car"),
        ("black &amp;amp; white", "black & white"),
        ("schÃ¶n", "schön"),
        ("“quoted”", '"quoted"'),
        ("", ""),
    ],
)
def test_cleaning(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer"):
        _tokenizer(tmp_path)
