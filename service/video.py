"""Video files: their frames as pictures, and pictures as a file. The only door to PyAV."""

# mypy: allow-untyped-calls

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av.error import FFmpegError
from PIL import Image

_CODEC = "libx264"
# Visually lossless for drawn masks, and small.
_QUALITY = "20"
# Degrees anticlockwise that a file says its pictures are to be turned by.
_TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    -180: Image.Transpose.ROTATE_180,
    -90: Image.Transpose.ROTATE_270,
}


class VideoError(Exception):
    """A file that is no video, or cannot be written; the message names it."""


class Video:
    """A video file, opened to be read once. Use it as a context manager."""

    def __init__(self, source: Path | bytes) -> None:
        """Of a file, or of a file's bytes.

        Raises VideoError for what is no video, OSError for what cannot be opened.
        """
        self._name = "video" if isinstance(source, bytes) else str(source)
        try:
            self._container = av.open(io.BytesIO(source) if isinstance(source, bytes) else source, "r")
        except FFmpegError as error:
            if isinstance(source, Path) and isinstance(error, OSError) and not source.is_file():
                raise FileNotFoundError(error.errno, "there is no such file", str(source)) from error
            raise VideoError(f"{self._name} cannot be read as a video") from error
        streams = self._container.streams.video
        if not streams:
            self._container.close()
            raise VideoError(f"{self._name} has no video in it")
        self._stream = streams[0]

    def __enter__(self) -> "Video":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    @property
    def frames(self) -> int | None:
        """How many there are, if the file says so."""
        return self._stream.frames or None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a frame as it is stored, pixels; 0 where the file does not say."""
        return self._stream.codec_context.width, self._stream.codec_context.height

    @property
    def rate(self) -> Fraction:
        """Frames per second."""
        return self._stream.average_rate or Fraction(25)

    def __iter__(self) -> Iterator[Image.Image]:
        """Every frame, RGB, the way up that it is to be shown."""
        try:
            for frame in self._container.decode(self._stream):
                turn = _TURNS.get(frame.rotation)
                picture = frame.to_image()
                yield picture if turn is None else picture.transpose(turn)
        except FFmpegError as error:
            raise VideoError(f"{self._name} is damaged: {error.strerror or error}") from error


class Writer:
    """An MP4 or other video file that frames are added to. Use it as a context manager."""

    def __init__(self, path: Path, rate: Fraction, size: tuple[int, int]) -> None:
        """`size` is width and height. Raises VideoError for an ending that no format goes by."""
        try:
            self._container = av.open(path, "w")
        except (FFmpegError, ValueError) as error:
            raise VideoError(f"{path}: no video format is known by {path.suffix or 'no ending'}") from error
        # The codec takes even sizes alone.
        self._size = (size[0] - size[0] % 2, size[1] - size[1] % 2)
        stream = self._container.add_stream(_CODEC, rate=rate, options={"crf": _QUALITY})
        assert isinstance(stream, av.VideoStream)
        self._stream = stream
        self._stream.width, self._stream.height = self._size
        self._stream.pix_fmt = "yuv420p"

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def add(self, picture: Image.Image) -> None:
        """One more frame; an odd size loses its last row or column."""
        frame = av.VideoFrame.from_image(picture.convert("RGB").crop((0, 0, *self._size)))
        self._container.mux(self._stream.encode(frame))


def as_tiff(picture: Image.Image) -> bytes:
    """The picture as a file whose making takes next to no time, as large as its pixels."""
    file = io.BytesIO()
    picture.save(file, "TIFF")
    return file.getvalue()


def as_png(picture: Image.Image) -> bytes:
    """The picture as a file, without loss."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()
