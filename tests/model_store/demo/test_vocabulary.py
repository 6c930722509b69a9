import numpy as np
import pytest

from model_store.demo.student import Words
from model_store.demo.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.load()


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(0))


def test_there_are_nouns_wider_words_shapes_and_colours(vocabulary: Vocabulary) -> None:
    assert len(vocabulary.nouns) >= 280
    assert {"animal", "fruit", "food", "vehicle"} <= set(vocabulary.wider)
    assert {"circle", "red circle", "dog"} <= set(vocabulary.concepts)
    assert len(set(vocabulary.concepts)) == len(vocabulary.concepts)


def test_a_drawing_has_its_noun_what_is_wider_and_its_colour(vocabulary: Vocabulary) -> None:
    assert vocabulary.names_of("eagle", "brown") == {"eagle", "brown eagle", "bird", "animal"}
    assert vocabulary.names_of("eagle", None) == {"eagle", "bird", "animal"}
    assert vocabulary.names_of("grinning-face", "yellow") == set()
    assert vocabulary.own(vocabulary.names_of("eagle", "brown")) == "eagle"
    assert vocabulary.own({"circle", "red circle"}) == "red circle"


@pytest.mark.parametrize(
    ("noun", "plural"),
    [("dog", "dogs"), ("fox", "foxes"), ("mouse", "mice"), ("cherry", "cherries"), ("monkey", "monkeys")],
)
def test_plurals(vocabulary: Vocabulary, noun: str, plural: str) -> None:
    assert vocabulary.plural(noun) == plural


def test_a_concept_is_said_in_many_ways_all_of_words_that_are_known(
    vocabulary: Vocabulary, generator: np.random.Generator
) -> None:
    said = {vocabulary.phrase("dog", generator).lower() for _ in range(300)}
    assert {"dog", "a dog", "the dog", "dogs", "two dogs", "puppy", "the puppies"} <= said
    assert {vocabulary.phrase("orange ant", generator).lower() for _ in range(99)} >= {"an orange ant"}
    words = set(vocabulary.words)
    for concept in vocabulary.concepts:
        assert set(vocabulary.phrase(concept, generator).lower().split()) <= words, concept


def test_an_unknown_word_is_no_word_of_the_world_and_evaluations_ask_for_others(
    vocabulary: Vocabulary,
) -> None:
    heard, unheard = set(vocabulary.unknown_words), set(vocabulary.unheard_words)
    assert len(heard) > 200 and len(unheard) > 200 and not heard & unheard
    names = {word for noun in vocabulary.nouns for word in (noun, *vocabulary.also.get(noun, ()))}
    assert not (heard | unheard) & (
        {part for name in names for part in name.split()} - set(vocabulary.shapes)
    )


def test_a_concept_that_is_near_is_of_the_same_kind(
    vocabulary: Vocabulary, generator: np.random.Generator
) -> None:
    for _ in range(50):
        assert vocabulary.near("red circle", generator).endswith(" circle")
        assert "bird" in vocabulary.nouns[vocabulary.near("eagle", generator)]


def test_the_text_encoder_has_ids_for_every_phrase(
    vocabulary: Vocabulary, generator: np.random.Generator
) -> None:
    words = Words(vocabulary)
    dog, puppies, unknown = words("dog"), words("the puppies"), words("qxzv")
    assert dog.dtype == np.int32 and dog[0] == puppies[0] and np.count_nonzero(dog) == 3
    # A word that is not known falls into pieces.
    assert np.count_nonzero(unknown) > np.count_nonzero(dog)
    for _ in range(200):
        assert words(vocabulary.unknown(generator, heard=False)).max() == dog[2]
