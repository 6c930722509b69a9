"""Reading picture files: those of the person at the command, and the masks of an answer."""

import io
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError


def displayed(file: bytes, formats: tuple[str, ...] | None = None) -> Image.Image:
    """The file's picture, its EXIF orientation applied, in the file's own mode.

    `formats`: Pillow's names of those that are allowed. Raises OSError if it cannot be read, or has more
    pixels than Pillow's bound (179 million).
    """
    try:
        with warnings.catch_warnings():
            # Said above half the bound: the service takes pictures of that size.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(file), formats=formats) as picture:
                return ImageOps.exif_transpose(picture)
    except UnidentifiedImageError as error:
        raise OSError("it is no picture of a known format") from error
    except (Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise OSError(f"it cannot be read: {error}") from error
