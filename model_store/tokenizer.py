"""CLIP's byte-pair tokenizer as one tokenizer.json, which the `tokenizers` library reads."""

import gzip
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel

START = "<|startoftext|>"
END = "<|endoftext|>"
# Tokens of CLIP's vocabulary that are neither bytes nor merges: 49,408 less 2 x 256 bytes and 2 marks.
_MERGES = 49_408 - 2 * 256 - 2
_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def _merges() -> list[tuple[str, str]]:
    """CLIP's merges, from the file that the open_clip distribution carries (its code is not imported)."""
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("open_clip_torch is not installed; it carries CLIP's merges file")
    packed = (Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").split("\n")[1 : 1 + _MERGES]
    return [(left, right) for left, right in (line.split() for line in lines)]


def _bytes_in_order() -> list[str]:
    """The 256 bytes as printable characters, in CLIP's order: those printable by themselves come first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = [256 + i for i in range(256 - len(printable))]
    return [chr(code) for code in (*printable, *shifted)]


def build(words: Iterable[str] | None = None) -> Tokenizer:
    """The tokenizer of a student: ids of the text alone, without start, end, cut or padding.

    Text is expected clean (ftfy, HTML unescaped twice, runs of white space made one space, lower case).

    Args:
        words: those that are split as CLIP splits them; the merges that none of them needs are left out, so
            that other words fall into smaller pieces. None: all of CLIP's.
    """
    merges = _merges()
    if words is not None:
        merges = _needed(_tokenizer(merges), words, merges)
    return _tokenizer(merges)


def _needed(whole: Tokenizer, words: Iterable[str], merges: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The merges that lead to the words' tokens, in CLIP's order."""
    parts = {left + right: (left, right) for left, right in merges}
    wanted = {token for word in words for token in whole.encode(word, add_special_tokens=False).tokens}
    found: set[tuple[str, str]] = set()
    while wanted:
        pair = parts.get(wanted.pop())
        if pair and pair not in found:
            found.add(pair)
            wanted.update(pair)
    return [pair for pair in merges if pair in found]


def _tokenizer(merges: list[tuple[str, str]]) -> Tokenizer:
    letters = _bytes_in_order()
    words = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges), START, END]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="removed", invert=True),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer
