"""Images that once caused an internal error, or much work, at every entry point that takes an image."""

import time
from collections.abc import Iterator

import psutil
import pytest
from PIL import Image

from tests.e2e.entry_points import IMAGES, Send, is_plain
from tests.hostile_images import CHEAP, REFUSED, TRANSPARENCY, damaged, png_bomb, tiff_with
from tests.pictures import encoded
from tests.place import DEMO
from tests.serving import Serving
from tests.worker.files import BITS

CLICK = {"points": [{"x": 2, "y": 2}]}
# Processor seconds: EXIF that was parsed anew for every segment took 6.7.
EXIF_CPU_S = 3.0

# By name: the file, and the kind of its refusal.
FILES: dict[str, tuple[bytes, str]] = {
    "PNG, text named transparency": (TRANSPARENCY, "ok"),
    "TIFF, bits as RATIONAL": (tiff_with(BITS, 5, 1, 8), "unsupported_image"),
    "TIFF, bits as SRATIONAL": (tiff_with(BITS, 10, 1, 8), "unsupported_image"),
    "TIFF, bits as FLOAT": (tiff_with(BITS, 11, 1, 0x41000000), "unsupported_image"),
    "TIFF, bits as DOUBLE": (tiff_with(BITS, 12, 1, 8), "unsupported_image"),
    "not an image": (b"<object at 0x7f00deadbeef> /usr/lib/x.py", "unsupported_image"),
    "nothing": (b"", "invalid_argument"),
    "144 megapixels": (encoded(Image.new("1", (12_000, 12_000)), "PNG"), "payload_too_large"),
    "a wide canvas": (png_bomb(40_000, 1, 1), "payload_too_large"),
    "TIFF, a million strips": (REFUSED["a TIFF of too many strips"], "unsupported_image"),
    "PNG, empty chunks": (REFUSED["a PNG of empty chunks"], "unsupported_image"),
    "JPEG, repeated scans": (REFUSED["a JPEG of scans of many pixels"], "unsupported_image"),
}


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The embedded student behind a gateway, with one worker that must live to the end."""
    with Serving(DEMO, tmp_path_factory.mktemp("images") / "log", precision="f32") as serving:
        before = serving.workers()
        yield serving
        assert serving.workers() == before
        assert "Traceback" not in serving.log.read_text()


@pytest.mark.parametrize("send", IMAGES)
def test_an_image_is_answered_or_refused_without_revealing_internals(serving: Serving, send: Send) -> None:
    for name, (image, kind) in FILES.items():
        outcome = send(serving, image, CLICK)
        assert outcome[0] == kind and is_plain(outcome), (name, outcome)


@pytest.mark.parametrize("send", IMAGES)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
def test_a_damaged_image_is_answered_or_refused(serving: Serving, send: Send, file_format: str) -> None:
    for index, image in enumerate(damaged(file_format, 8, seed=1912)):
        outcome = send(serving, image, CLICK)
        assert is_plain(outcome), (index, outcome)
        assert outcome[0] in ("ok", "unsupported_image", "payload_too_large", "invalid_argument"), outcome


@pytest.mark.parametrize("send", [each for each in IMAGES if "images" in each.__name__])
@pytest.mark.parametrize("name", ["a JPEG of EXIF segments", "a JPEG whose tags share one value"])
def test_exif_costs_little_processor_time(serving: Serving, send: Send, name: str) -> None:
    (worker,) = serving.workers()
    # A new file each time: nothing is known of it.
    image = CHEAP[name] + send.__name__.encode() + str(time.time_ns()).encode()
    before = processor_s(worker)
    assert send(serving, image, CLICK) == ("ok", "")
    assert processor_s(worker) - before < EXIF_CPU_S


def processor_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
