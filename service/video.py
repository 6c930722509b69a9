"""Video files: their frames as pictures, and pictures as a file. The only door to PyAV."""

# mypy: allow-untyped-calls

import io
import itertools
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NoReturn

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from PIL import Image

_CODEC = "libx264"
# Visually lossless for drawn masks, and small.
_QUALITY = "20"
# FFmpeg's demuxers that are used, and what their format is called. None of them opens other files by itself.
_DEMUXERS = {"mov": "MP4", "matroska": "Matroska", "avi": "AVI", "mpegts": "MPEG-TS"}
# Its decoders of videos that people have. Others are rarely used, and have seen the fewest hostile files.
_DECODERS = (
    "av1,cinepak,dnxhd,dvvideo,ffv1,ffvhuff,flv,h261,h263,h263p,h264,hevc,huffyuv,libdav1d,libvpx,libvpx-vp9,"
    "mjpeg,mpeg1video,mpeg2video,mpeg4,mpegvideo,msmpeg4,msmpeg4v1,msmpeg4v2,msvideo1,png,prores,qtrle,"
    "rawvideo,svq3,theora,utvideo,v210,vc1,vp6f,vp8,vp9,wmv1,wmv2,wmv3"
)
_MOST_THREADS = 4
# Enough for three packets of MPEG-TS.
_HEAD_BYTES = 612
# Types of atoms that an MP4 or QuickTime file may begin with.
_MOV_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_TS_SYNC = 0x47
# Bytes of a packet of MPEG-TS and where its sync byte is: plain, with a time stamp, with check bytes.
_TS_PACKETS = ((188, 0), (192, 4), (204, 0))
# Degrees anticlockwise that a file says its pictures are to be turned by.
_TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    -180: Image.Transpose.ROTATE_180,
    -90: Image.Transpose.ROTATE_270,
}


class VideoError(Exception):
    """A file that is no video, or cannot be written; the message names it."""


class FrameTooLargeError(VideoError):
    """A video whose frames have more pixels than are allowed."""


class DamagedFrameError(VideoError):
    """A video with a frame that cannot be decoded."""


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """The largest frames that are decoded, pixels."""

    max_pixels: int
    max_side: int


class Video:
    """A video file, opened to be read once. Use it as a context manager.

    Only the formats of `_DEMUXERS` are read, and nothing but the file itself. Threads may close it while it
    is read: `close` waits for the frame that is being decoded.
    """

    def __init__(self, source: Path | bytes, limits: FrameLimits | None = None) -> None:
        """Open a file, or a file's bytes.

        Raises VideoError for what is no video, FrameTooLargeError, and OSError for what cannot be opened.
        """
        self._name = "video" if isinstance(source, bytes) else str(source)
        self._limits = limits
        # Held while a frame is decoded: FFmpeg crashes where a file is closed under it.
        self._lock = threading.Lock()
        self._file: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        self._container: InputContainer | None = None
        try:
            self._container = self._open()
            self._stream = self._first_stream(self._container)
            self._context = self._stream.codec_context
            self._check_size(*self.size)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Video":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, once no thread decodes a frame of it. It may be closed again."""
        with self._lock:
            container, self._container = self._container, None
            if container is not None:
                container.close()
            self._file.close()

    @property
    def frames(self) -> int | None:
        """How many there are, if the file says so."""
        return self._stream.frames or None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a frame as it is stored, pixels; 0 where the file does not say."""
        return self._context.width, self._context.height

    @property
    def rate(self) -> Fraction:
        """Frames per second."""
        return self._stream.average_rate or Fraction(25)

    def __iter__(self) -> Iterator[Image.Image]:
        """Yield every frame, RGB, the way up that it is to be shown.

        Raises VideoError where the file is damaged or encrypted, and when the video was closed meanwhile;
        FrameTooLargeError where a frame is larger than the limits, whatever the file says at its begin.
        """
        pictures = self._pictures()
        for index in itertools.count():
            with self._lock:
                if self._container is None:
                    raise VideoError(f"{self._name} was closed while it was read")
                try:
                    picture = next(pictures, None)
                except MemoryError:
                    raise
                except (FFmpegError, ValueError) as error:
                    raise DamagedFrameError(f"{self._name} is damaged at frame {index:,}") from error
            if picture is None:
                return
            yield picture

    def _pictures(self) -> Iterator[Image.Image]:
        assert self._container is not None
        for packet in self._container.demux(self._stream):
            if packet.has_sidedata("encryption_info"):
                raise self._encrypted()
            for frame in packet.decode():
                assert isinstance(frame, av.VideoFrame)
                self._check_size(frame.width, frame.height)
                turn = _TURNS.get(frame.rotation)
                picture = frame.to_image()
                yield picture if turn is None else picture.transpose(turn)

    def _open(self) -> InputContainer:
        head = self._file.read(_HEAD_BYTES)
        self._file.seek(0)
        demuxer = _demuxer_of(head)
        unreadable = f"{self._name} cannot be read as a video"
        if demuxer is None:
            raise VideoError(f"{unreadable}: send an MP4, MOV, Matroska, WebM, AVI or MPEG-TS file")
        options = {
            # The name that FFmpeg finds for the file must be that of its first bytes.
            "format_whitelist": demuxer,
            "codec_whitelist": _DECODERS,
            # No protocol has this name: nothing else than the file is opened.
            "protocol_whitelist": "none",
        }
        if demuxer == "mov":
            options |= {"enable_drefs": "0", "use_absolute_path": "0"}
        try:
            # Tags are of no interest, and may be in any encoding.
            return av.open(
                self._file, "r", container_options=options, metadata_errors="replace", io_open=_refuse
            )
        except MemoryError:
            raise
        except (FFmpegError, ValueError) as error:
            raise VideoError(f"{unreadable}: its {_DEMUXERS[demuxer]} container is damaged") from error

    def _first_stream(self, container: InputContainer) -> VideoStream:
        demuxers = container.format.name.split(",")
        if not _DEMUXERS.keys() & set(demuxers):
            raise VideoError(f"{self._name} cannot be read as a video: its format is not allowed")
        if not container.streams.video:
            raise VideoError(f"{self._name} has no video in it")
        stream = container.streams.video[0]
        if "enc_key_id" in stream.metadata:
            raise self._encrypted()
        context: VideoCodecContext | None = stream.codec_context
        if context is None or context.codec.name not in _DECODERS.split(","):
            codec = "unknown" if context is None else context.codec.name
            raise VideoError(f"{self._name} has a codec that is not supported ({codec}): send H.264")
        context.thread_count = min(_MOST_THREADS, os.cpu_count() or 1)
        return stream

    def _check_size(self, width: int, height: int) -> None:
        limits = self._limits
        if limits and (width * height > limits.max_pixels or max(width, height) > limits.max_side):
            raise FrameTooLargeError(
                f"{self._name} has frames of {width:,} x {height:,} pixels; the limits are "
                f"{limits.max_pixels:,} in all and {limits.max_side:,} for a side"
            )

    def _encrypted(self) -> VideoError:
        return VideoError(f"{self._name} is encrypted: send it without encryption")


def _demuxer_of(head: bytes) -> str | None:
    """Return the name of FFmpeg's demuxer for a file that begins with these bytes, if it is allowed."""
    if head[4:8] in _MOV_ATOMS:
        return "mov"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:11] == b"AVI":
        return "avi"
    for packet, sync in _TS_PACKETS:
        if len(head) > packet + sync and all(byte == _TS_SYNC for byte in head[sync::packet]):
            return "mpegts"
    return None


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    """Refuse to open what a video refers to."""
    raise PermissionError("a video may not open other files")


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
