"""What the world's things are called: nouns, wider words, colours with them, and the ways of saying each."""

import hashlib
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

import numpy as np

Generator = np.random.Generator

_ARTICLES = ("a", "the", "one")
_MANY = ("two", "three", "some", "all", "all the", "the", "many")
_VOWELS = "aeiou"
# Shares of phrases: the bare word; with an article; several. What is left over is the plural.
_BARE, _ARTICLE, _SEVERAL = 0.4, 0.7, 0.85


@dataclass(frozen=True)
class Vocabulary:
    """Concepts are strings: "dog", "animal", "circle", "red circle", "red car"."""

    # Wider words of each noun.
    nouns: dict[str, tuple[str, ...]]
    # Noun of each drawing that has one.
    noun_of: dict[str, str]
    # Drawings that are of none.
    unnamed: tuple[str, ...]
    shapes: tuple[str, ...]
    # RGB.
    colours: dict[str, tuple[int, int, int]]
    also: dict[str, tuple[str, ...]]
    plurals: dict[str, str]
    # Words of which nothing is drawn: those to train on, and those that only evaluations ask for.
    unknown_words: tuple[str, ...]
    unheard_words: tuple[str, ...]

    @classmethod
    def load(cls) -> "Vocabulary":
        """The one of vocabulary.toml."""
        return _load()

    @cached_property
    def drawings_of(self) -> dict[str, list[str]]:
        """The drawings of each noun."""
        drawings: dict[str, list[str]] = {noun: [] for noun in self.nouns}
        for drawing, noun in self.noun_of.items():
            drawings[noun].append(drawing)
        return drawings

    @cached_property
    def wider(self) -> tuple[str, ...]:
        """Words that are true of several nouns."""
        return tuple(dict.fromkeys(word for words in self.nouns.values() for word in words))

    @cached_property
    def own_names(self) -> tuple[str, ...]:
        """The most telling name of each kind of thing: nouns, and shapes with their colour."""
        return (*self.nouns, *(f"{colour} {shape}" for colour in self.colours for shape in self.shapes))

    @cached_property
    def concepts(self) -> tuple[str, ...]:
        """All but colours with nouns."""
        return (*self.own_names, *self.wider, *self.shapes)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Every word that a phrase of a thing can hold."""
        known = [form for name in (*self.nouns, *self.wider, *self.shapes) for form in self._forms(name)]
        extra = ["visual", "an", *_ARTICLES, *_MANY, *self.colours]
        return tuple(sorted({word for phrase in (*known, *extra) for word in phrase.split()}))

    def names_of(self, drawing: str, colour: str | None) -> frozenset[str]:
        """Every concept that the drawing is an instance of, with the colour that it clearly has, if any."""
        noun = self.noun_of.get(drawing)
        if noun is None:
            return frozenset()
        coloured = (f"{colour} {noun}",) if colour else ()
        return frozenset((noun, *self.nouns[noun], *coloured))

    def own(self, names: Iterable[str]) -> str:
        """The most telling of a thing's names: the noun, or the shape with its colour."""
        listed = sorted(names)
        return next((name for name in listed if name in self.nouns), max(listed, key=len))

    def near(self, concept: str, generator: Generator) -> str:
        """Another concept that is like this one: the same in another colour, or another of its kind."""
        colour, _, noun = concept.partition(" ")
        if colour in self.colours and noun:
            return f"{pick(list(self.colours), generator)} {noun}"
        if concept in self.nouns:
            wider = self.nouns[concept]
            return str(pick([noun for noun, words in self.nouns.items() if words == wider], generator))
        group = self.shapes if concept in self.shapes else self.wider
        return str(pick(group, generator))

    def phrase(self, concept: str, generator: Generator) -> str:
        """One way of asking for it: "dog", "a dog", "two dogs", "the puppies"; sometimes capitalised."""
        colour, _, noun = concept.partition(" ")
        if colour not in self.colours or not noun:
            colour, noun = "", concept
        others = self.also.get(noun, ())
        if others and generator.random() < 0.3:
            noun = pick(others, generator)
        said = self._said(f"{colour} {noun}".strip(), noun, generator)
        return said.capitalize() if generator.random() < 0.1 else said

    def unknown(self, generator: Generator, *, heard: bool = True) -> str:
        """A phrase of something that is never drawn.

        Args:
            heard: True draws from the words to train on, False from those that only evaluations ask for.
        """
        words = self.unknown_words if heard else self.unheard_words
        word = str(pick(words, generator))
        if generator.random() < 0.15:
            word = "".join(chr(97 + int(letter)) for letter in generator.integers(0, 26, len(word)))
        elif generator.random() < 0.15:
            word = f"{pick(list(self.colours), generator)} {word}"
        return self._said(word, word, generator)

    def _said(self, phrase: str, noun: str, generator: Generator) -> str:
        plural = phrase.removesuffix(noun) + self.plural(noun)
        draw = generator.random()
        if draw < _BARE:
            return phrase
        if draw < _ARTICLE:
            article = pick(_ARTICLES, generator)
            return f"{'an' if article == 'a' and phrase[0] in _VOWELS else article} {phrase}"
        return f"{pick(_MANY, generator)} {plural}" if draw < _SEVERAL else plural

    def plural(self, noun: str) -> str:
        """Of a noun or of its last word."""
        if noun in self.plurals:
            return self.plurals[noun]
        if noun.endswith(("s", "x", "ch", "sh")):
            return noun + "es"
        return noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in _VOWELS else noun + "s"

    def _forms(self, name: str) -> list[str]:
        every = (name, *self.also.get(name, ()))
        return [form for one in every for form in (one, self.plural(one))]


def pick(options: Sequence[Any], generator: Generator) -> Any:
    """One of them, each as likely."""
    return options[int(generator.integers(len(options)))]


@cache
def _load() -> Vocabulary:
    table = tomllib.loads(files("model_store.demo").joinpath("vocabulary.toml").read_text("utf-8"))
    groups = table["nouns"]
    unknown = table["unknown"]["words"]
    # Which half a word belongs to follows from the word alone.
    heard = [word for word in unknown if hashlib.sha256(word.encode()).digest()[0] % 2]
    return Vocabulary(
        nouns={noun: tuple(group["wider"]) for group in groups for noun in group["drawings"]},
        noun_of={
            drawing: noun
            for group in groups
            for noun, drawings in group["drawings"].items()
            for drawing in drawings
        },
        unnamed=tuple(table["unnamed"]["drawings"]),
        shapes=tuple(table["shapes"]["names"]),
        colours={name: (r, g, b) for name, (r, g, b) in table["colours"].items()},
        also={name: tuple(others) for name, others in table["also"].items()},
        plurals=table["plurals"],
        unknown_words=tuple(heard),
        unheard_words=tuple(word for word in unknown if word not in set(heard)),
    )
