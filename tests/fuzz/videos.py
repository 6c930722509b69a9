"""Small video files of several containers, edits of them, and other files that FFmpeg demuxes."""

import io
import struct
from functools import cache

import av
from hypothesis import strategies as st

from tests.fuzz.mutations import edited_bytes
from tests.pictures import moving_square

FRAMES = 2

# By container: the codec of the seed.
_CONTAINERS = {
    "mp4": "libx264",
    "mov": "mpeg4",
    "matroska": "libx264",
    "webm": "libvpx",
    "avi": "mpeg4",
    "mpegts": "mpeg2video",
}
# Text and tiny files that FFmpeg's demuxers take, some of which open other inputs.
LURES: dict[str, bytes] = {
    "sdp": (
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        b"m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    ),
    "ffconcat": b"ffconcat version 1.0\nfile model_store/samples/traffic-lights.mp4\n",
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
    "hls-http": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    "dash": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet>'
    b"<Representation><BaseURL>file:///etc/hostname</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "rtsp": b"RTSPtext\nrtsp://127.0.0.1:9/x\n",
    "asx": b"<ASX><Entry><Ref href='http://127.0.0.1:9/'/></Entry></ASX>",
    "srt": b"1\n00:00:00,000 --> 00:00:01,000\nhello\n",
    "webvtt": b"WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n",
    "lavfi": b"testsrc=size=16x16",
    "y4m": b"YUV4MPEG2 W16 H16 F25:1 Ip C420jpeg\nFRAME\n" + bytes(384),
    "wav": b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80>\0\0\x02\0\x10\0data\0\0\0\0",
    "ffmetadata": b";FFMETADATA1\ntitle=x\n",
    "tedcaptions": b'{"captions":[]}',
    "empty-box": b"\0\0\0\x08ftyp",
}


@cache
def seeds() -> dict[str, bytes]:
    """Valid files by container."""
    return {name: clip(name, codec) for name, codec in _CONTAINERS.items()}


def clip(
    container: str, codec: str, frames: int = FRAMES, width: int = 64, height: int = 48, **metadata: str
) -> bytes:
    """A file of so many frames of a moving square."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        output.metadata.update(metadata)
        stream = output.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            picture = av.VideoFrame.from_image(moving_square(index, width, height))
            for packet in stream.encode(picture):
                output.mux(packet)
        for packet in stream.encode(None):
            output.mux(packet)
    return buffer.getvalue()


@cache
def tagged() -> bytes:
    """A valid MP4 file whose title is not UTF-8."""
    return clip("mp4", "mpeg4", title="TITLE").replace(b"TITLE", b"\xff\xfe\xe9\x80\xc3")


def encrypted(fourcc: bytes = b"encv") -> bytes:
    """An MP4 file whose sample entry names a codec that nothing here decodes."""
    return seeds()["mp4"].replace(b"avc1", fourcc)


@st.composite
def videos(draw: st.DrawFn) -> bytes:
    """A seed with edited boxes or bytes, or a file that only looks like something."""
    if draw(st.integers(0, 5)) == 5:
        return edited_bytes(draw, LURES[draw(st.sampled_from(sorted(LURES)))], 3)
    name = draw(st.sampled_from(sorted(seeds())))
    data = seeds()[name]
    if name in ("mp4", "mov") and draw(st.booleans()):
        for _ in range(draw(st.integers(1, 3))):
            data = _edited_box(draw, data)
        return data
    return edited_bytes(draw, data, 3)


def _edited_box(draw: st.DrawFn, data: bytes) -> bytes:
    """One box, at any depth, gets another name, size or content, or is repeated."""
    at, length = draw(st.sampled_from(_boxes(data, 0, len(data)) or [(0, len(data))]))
    box = data[at : at + length]
    match draw(st.integers(0, 3)):
        case 0:
            box = (
                box[:4]
                + draw(
                    st.sampled_from((b"free", b"moov", b"trak", b"encv", b"dref", b"elst", b"uuid", b"sinf"))
                )
                + box[8:]
            )
        case 1:
            box = struct.pack(">I", draw(st.sampled_from((0, 1, 7, 8, 0xFFFF, 0xFFFF_FFFF)))) + box[4:]
        case 2:
            box = box[:8] + edited_bytes(draw, box[8:], 2)
        case _:
            box = box * draw(st.sampled_from((0, 2, 40)))
    return data[:at] + box + data[at + length :]


def _boxes(data: bytes, start: int, end: int) -> list[tuple[int, int]]:
    found, at = [], start
    while at + 8 <= end:
        (length,) = struct.unpack_from(">I", data, at)
        if length < 8 or at + length > end:
            break
        found.append((at, length))
        if data[at + 4 : at + 8] in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"udta", b"edts", b"dinf"):
            found += _boxes(data, at + 8, at + length)
        at += length
    return found
