"""Video files as attackers and broken tools make them."""

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import av

from tests.pictures import street

_TITLE = "a title that is replaced"


def written(
    width: int,
    height: int,
    frames: int,
    format: str = "mp4",
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
) -> bytes:
    """A video of a street that moves, in memory; `options` are the container's."""
    file = io.BytesIO()
    scene = street(width + 64, height)
    with av.open(file, "w", format=format, options=dict(options or {})) as container:
        container.metadata["title"] = _TITLE
        settings = {"crf": "28", "preset": "ultrafast"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=25, options=settings)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            left = 4 * index % 64
            frame = av.VideoFrame.from_image(scene.crop((left, 0, left + width, height)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def tagged(video: bytes) -> bytes:
    """The video of `written` with a title that is not UTF-8."""
    assert _TITLE.encode() in video
    return video.replace(_TITLE.encode(), b"\xff\xfe\xc3" * (len(_TITLE) // 3))


def unknown_codec(video: bytes) -> bytes:
    """The MP4 of `written` with a code for its codec that nobody knows."""
    assert video.count(b"avc1") >= 1
    return video.replace(b"avc1", b"zzz9")


def many_frames(video: bytes) -> bytes:
    """The MP4 of `written`, whose header states more frames than 32 bits can count."""
    begin = video.index(b"stts") - 4
    (size,) = struct.unpack_from(">I", video, begin)
    box = struct.pack(">4sII", b"stts", 0, 4) + struct.pack(">II", 2**31 - 2, 1) * 4
    box = struct.pack(">I", len(box) + 4) + box
    return _replaced(video, begin, begin + size, box, (b"moov", b"trak", b"mdia", b"minf", b"stbl"))


def _replaced(video: bytes, begin: int, end: int, box: bytes, parents: Sequence[bytes]) -> bytes:
    """The MP4 with another box instead of the bytes from `begin` to `end`, inside the parents."""
    before = bytearray(video[:begin])
    for name in parents:
        at = before.rindex(name) - 4
        (size,) = struct.unpack_from(">I", before, at)
        struct.pack_into(">I", before, at, size + len(box) - (end - begin))
    return bytes(before) + box + video[end:]


def encrypted() -> bytes:
    """An MP4 whose samples are encrypted."""
    key, id = "76a6c65c5ea762046bd749a2e632ccbb", "a7e61c373e219033c21091fa607bf3b8"
    scheme = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": id}
    return written(320, 240, 5, options=scheme)


def referring(video: bytes, other: Path) -> bytes:
    """The MP4 with its pixels gone, and a QuickTime alias in `dref` that names another file that has them."""
    path = str(other).encode()
    alias = bytearray(150)
    # Of an alias only the volume, the file's name and the number of directory levels are looked at.
    alias[10] = 4
    alias[11:15] = b"disk"
    alias[50] = len(other.name)
    alias[51 : 51 + len(other.name)] = other.name.encode()
    struct.pack_into(">hh", alias, 130, -1, -1)
    records = struct.pack(">hH", 2, len(path)) + path + bytes(len(path) % 2) + struct.pack(">hH", -1, 0)
    entry = bytes(4) + bytes(alias) + records
    entry = struct.pack(">I4s", len(entry) + 8, b"alis") + entry
    begin = video.index(b"url \0\0\0\1") - 4
    first, last = video.index(b"mdat") + 4, video.index(b"moov") - 4
    assert first < last < begin
    blank = video[:first] + bytes(last - first) + video[last:]
    return _replaced(blank, begin, begin + 12, entry, (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"))


def playlists(address: str, path: str) -> Iterator[tuple[str, bytes]]:
    """Texts that FFmpeg takes for a video and that name a server's address, or a file."""
    yield "concat", f"ffconcat version 1.0\nfile {path}\n".encode()
    yield "concat of an address", f"ffconcat version 1.0\nfile {address}\n".encode()
    yield (
        "hls",
        (
            "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n"
            f"#EXTINF:1.0,\n{address}/part.ts\n#EXT-X-ENDLIST\n"
        ).encode(),
    )
    yield (
        "dash",
        (
            '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
            'mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-main:2011"><Period>'
            f'<AdaptationSet mimeType="video/mp4"><BaseURL>{address}/</BaseURL><Representation id="1" '
            'bandwidth="1" codecs="avc1"><SegmentList duration="1">'
            '<SegmentURL media="part.mp4"/></SegmentList>'
            "</Representation></AdaptationSet></Period></MPD>"
        ).encode(),
    )
    yield "imf", b'<?xml version="1.0"?><AssetMap xmlns="http://www.smpte-ra.org/schemas/429-9/2007/AM"/>'
    yield "image2", path.replace("1", "%d").encode()
    yield "rtsp", f"[Reference]\nRef1={address}\n".encode()


def sdp(port: int) -> bytes:
    """A description of a session whose video comes to this UDP port."""
    return (
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n"
    ).encode()
