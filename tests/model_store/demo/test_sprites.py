import numpy as np
import pytest
from PIL import Image

from model_store.demo.sprites import colour_of, shape
from model_store.demo.vocabulary import Vocabulary


@pytest.mark.parametrize(
    ("rgb", "colour"),
    [
        ((119, 178, 85), "green"),
        ((221, 46, 68), "red"),
        ((193, 105, 79), "brown"),
        ((204, 214, 221), "white"),
        ((230, 200, 160), None),
        ((40, 190, 190), None),
    ],
)
def test_a_sprite_is_called_by_the_colour_that_a_person_would_see(
    rgb: tuple[int, int, int], colour: str | None
) -> None:
    assert colour_of(Image.new("RGBA", (40, 40), rgb), Vocabulary.load()) == colour


def test_a_sprite_of_several_colours_is_called_by_none() -> None:
    sprite = Image.new("RGBA", (40, 40), (215, 38, 38))
    sprite.paste((45, 95, 215), (0, 0, 20, 40))
    assert colour_of(sprite, Vocabulary.load()) is None
    assert colour_of(Image.new("RGBA", (4, 4)), Vocabulary.load()) is None


def test_shapes_are_called_by_the_colour_that_they_are_drawn_in() -> None:
    vocabulary, generator = Vocabulary.load(), np.random.Generator(np.random.PCG64(0))
    for name in vocabulary.shapes:
        for colour, rgb in vocabulary.colours.items():
            assert colour_of(shape(name, rgb, generator), vocabulary) in (colour, None), (name, colour)
