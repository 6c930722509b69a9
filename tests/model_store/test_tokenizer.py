import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel

from model_store import sample, tokenizer


@pytest.fixture(scope="module")
def built() -> Tokenizer:
    return tokenizer.build()


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", []),
        ("truck", [4629]),
        ("a red car", [320, 736, 1615]),
        ("dog", [1929]),
    ],
)
def test_texts_become_clips_ids(built: Tokenizer, text: str, ids: list[int]) -> None:
    assert built.encode(text).ids == ids


def test_the_vocabulary_is_clips(built: Tokenizer) -> None:
    assert built.get_vocab_size() == 49_408
    assert built.token_to_id(tokenizer.START) == 49_406
    assert built.token_to_id(tokenizer.END) == 49_407


def test_the_samples_words_are_the_vocabularys(built: Tokenizer) -> None:
    for word, token in (("truck", sample.TRUCK), ("visual", sample.VISUAL)):
        assert built.encode(word).ids == [token]


@pytest.mark.parametrize("text", ["naïve café", "猫 🐶", "don't", "x" * 300, "1234 cats!!"])
def test_any_text_survives_as_its_bytes(built: Tokenizer, text: str) -> None:
    tokens = [token.replace("</w>", "") for token in built.encode(text).tokens]
    assert ByteLevel().decode(tokens) == text.replace(" ", "")


def test_a_tokenizer_of_some_words_splits_them_as_clip_does_and_needs_few_ids(built: Tokenizer) -> None:
    words = ["dog", "dogs", "caterpillar", "hexagon", "yo-yo", "strawberries"]
    small = tokenizer.build(words)
    assert small.get_vocab_size() < 600
    for text in (*words, "dog dogs", "hexagon yo-yo"):
        assert small.encode(text).tokens == built.encode(text).tokens


def test_a_tokenizer_of_some_words_splits_others_further(built: Tokenizer) -> None:
    small = tokenizer.build(["dog"])
    assert built.encode("zebra").tokens == ["zebra</w>"]
    assert "".join(small.encode("zebra").tokens) == "zebra</w>"
    assert len(small.encode("zebra").tokens) > 1
