"""The result of scanning an image file's structure, and the errors that a scan raises."""

from dataclasses import dataclass

from service.errors import Kind, ServiceError


@dataclass(frozen=True, slots=True)
class Header:
    """An image file's structure, read without decoding a pixel."""

    # Pillow's name of the format: JPEG, PNG, WEBP, TIFF or GIF.
    format: str
    # Pixels of the first picture as stored, before any rotation.
    width: int
    height: int
    # The file without metadata that a decoder would have to walk.
    data: bytes
    # EXIF's orientation, 1 to 8; None if the scan did not read it.
    orientation: int | None = None
    # The file has several pictures.
    animated: bool = False

    @property
    def pixels(self) -> int:
        return self.width * self.height


def damaged(name: str) -> ServiceError:
    """Return the error for a file whose structure is broken or of an unknown kind."""
    detail = f"image is a damaged {name} file, or one of a kind that is not supported."
    return ServiceError(Kind.UNSUPPORTED_IMAGE, detail)


def over_limit(name: str, what: str) -> ServiceError:
    """Return the error for a file whose structure exceeds a limit."""
    return ServiceError(Kind.UNSUPPORTED_IMAGE, f"image is a {name} file of over {what}, which is the limit.")
