"""A picture and texts to try a student on, made from numbers alone."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def picture(side: int) -> NDArray[np.uint8]:
    """A scene of sky, ground, a house and a truck-like thing: (side, side, 3) uint8 RGB, always the same."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float64) / side
    noise = np.random.Generator(np.random.PCG64(7)).random((side, side, 1))
    scene = np.stack((0.45 + 0.3 * y, 0.6 + 0.2 * y, 0.9 - 0.2 * y), axis=-1)
    scene[y > 0.62] = (0.42, 0.40, 0.36)
    scene += 0.05 * np.sin(40 * x + 9 * y)[..., None] * (y > 0.62)[..., None]
    _box(scene, x, y, (0.08, 0.30, 0.34, 0.66), (0.65, 0.35, 0.25))
    _box(scene, x, y, (0.15, 0.40, 0.21, 0.50), (0.20, 0.25, 0.30))
    _box(scene, x, y, (0.44, 0.42, 0.76, 0.74), (0.85, 0.85, 0.80))
    _box(scene, x, y, (0.76, 0.52, 0.90, 0.74), (0.75, 0.10, 0.10))
    _box(scene, x, y, (0.79, 0.55, 0.87, 0.62), (0.55, 0.75, 0.85))
    for centre in (0.53, 0.83):
        scene[(x - centre) ** 2 + (y - 0.75) ** 2 < 0.045**2] = (0.08, 0.08, 0.09)
    scene[(x - 0.2) ** 2 + (y - 0.13) ** 2 < 0.06**2] = (0.98, 0.90, 0.55)
    return (255 * np.clip(scene + 0.06 * (noise - 0.5), 0, 1)).round().astype(np.uint8)


def _box(
    scene: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    box: tuple[float, float, float, float],
    colour: tuple[float, float, float],
) -> None:
    left, top, right, bottom = box
    scene[(x >= left) & (x < right) & (y >= top) & (y < bottom)] = colour


# Ids of words in CLIP's vocabulary.
TRUCK, VISUAL = 4_629, 7_195


def tokens(context: int, vocabulary: int, word: int = TRUCK) -> NDArray[np.int32]:
    """A text of one word, "truck" unless said otherwise, as (1, context) int32.

    Args:
        vocabulary: ids that there are; the last two are the marks around a text. A word beyond them is
            replaced by one of them.
    """
    ids = np.zeros((1, context), dtype=np.int32)
    ids[0, :3] = (vocabulary - 2, min(word, vocabulary - 3), vocabulary - 1)
    return ids


def exemplars() -> dict[str, NDArray[Any]]:
    """A point and a box that are of the concept, and a padding box, as `concept_decoder` takes them."""
    return {
        "exemplar_points": np.array([[[0.6, 0.6]]], dtype=np.float32),
        "exemplar_point_labels": np.array([[1]], dtype=np.int32),
        "exemplar_boxes": np.array([[[0.44, 0.42, 0.9, 0.8], [0, 0, 0, 0]]], dtype=np.float32),
        "exemplar_box_labels": np.array([[1, -10]], dtype=np.int32),
    }


def objects(mask_size: int) -> dict[str, NDArray[Any]]:
    """Two objects as `prompt_decoder` takes them: a box with two clicks, and one click with a mask."""
    mask = np.full((2, mask_size, mask_size), -10, dtype=np.float32)
    mask[1, mask_size // 3 : mask_size // 2, mask_size // 3 : mask_size // 2] = 10
    points = [[[0.44, 0.42], [0.9, 0.8], [0.6, 0.6], [0.2, 0.2], [0, 0]], [[0.4, 0.4], *[[0, 0]] * 4]]
    return {
        "image": np.zeros(2, dtype=np.int32),
        "points": np.array(points, dtype=np.float32),
        "point_labels": np.array([[2, 3, 1, 0, -1], [1, -1, -10, -10, -10]], dtype=np.int32),
        "mask": mask,
        "has_mask": np.array([False, True]),
    }


def past(kept: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Two objects' memory as `memory_attention` takes it, beside four pointers: three frames of one, two of
    the other.

    Args:
        kept: (2, T, M) of one frame.
    """
    return {
        "memory": np.stack((kept, kept[::-1], 0.5 * kept), axis=1),
        "ages": np.array([[0, 2, 1], [0, 1, 0]], dtype=np.int32),
        "memory_valid": np.array([[True] * 3, [True, True, False]]),
        "pointer_ages": np.array([[0.2, 2 / 15, 1 / 15, 0], [2 / 15, 1 / 15, 0, 0]], dtype=np.float32),
        "pointers_valid": np.array([[True, True, True, False], [True, True, False, False]]),
    }
