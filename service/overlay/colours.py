"""The colours of the overlay."""

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)

# They differ in lightness as well as in hue, so that people who do not see some hues can tell them apart,
# the first four best.
_COLOURS: tuple[Colour, ...] = (
    (0, 120, 255),
    (255, 140, 0),
    (0, 200, 140),
    (215, 45, 150),
    (255, 225, 40),
    (105, 40, 180),
    (140, 225, 255),
    (165, 45, 15),
)


def colour_of(index: int) -> Colour:
    """The colour of the segment, or of the prompt, with this index."""
    return _COLOURS[index % len(_COLOURS)]


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever is legible on `colour` (Rec. 709 luma)."""
    luma = 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]
    return BLACK if luma > 130 else WHITE
