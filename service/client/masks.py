"""Masks of answers as arrays. What decodes them is optional: it is imported when one is asked for."""

import base64
import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    MaskArray: TypeAlias = NDArray[np.bool_]


def array(mask: Mapping[str, Any] | None) -> "MaskArray":
    """(height, width) bool of an answer's mask in any format. Raises ValueError where there is none."""
    if mask is None:
        raise ValueError("there is no mask: none was asked for, or the object is not visible")
    height, width = mask["size"]
    match mask["format"]:
        case "rle":
            return _of_rle(mask["counts"], height, width)
        case "png":
            return _of_png(mask["png"])
        case "polygon":
            return _of_rings(mask["rings"], height, width)
        case unknown:
            raise ValueError(f"a mask's format is {unknown!r}; rle, png and polygon are known")


def _of_rle(counts: str, height: int, width: int) -> "MaskArray":
    from pycocotools import mask as coco

    decoded: MaskArray = coco.decode({"size": [height, width], "counts": counts.encode()}).astype(bool)
    return decoded


def _of_png(encoded: str) -> "MaskArray":
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(encoded)), formats=("PNG",)) as opened:
        return np.asarray(opened.convert("L")) > 127


def _of_rings(rings: Iterable[Mapping[str, Any]], height: int, width: int) -> "MaskArray":
    """What lies within rings along the pixels' edges: each vertical edge turns what is right of it."""
    import numpy as np

    turned = np.zeros((height, width + 1), bool)
    for ring in rings:
        corners = np.asarray(ring["xy"], int).reshape(-1, 2)
        for (x, y), (_, y_next) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            turned[min(y, y_next) : max(y, y_next), x] ^= True
    filled: MaskArray = np.logical_xor.accumulate(turned, axis=1)[:, :width]
    return filled
