"""A whole multipart/form-data body -> its parts, parsed at once: any thread may do it."""

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import Kind, ServiceError

_MAX_PARTS = 4
# Headers of one part: it needs Content-Disposition, and may have Content-Type.
_MAX_PART_HEADERS = 16


@dataclass(slots=True)
class Part:
    """One part of a body."""

    name: str = ""
    # Whether it has a file name, as a browser gives to what it takes from a file.
    is_file: bool = False
    # Views of the body, which are not copied before they are needed.
    pieces: list[memoryview] = field(default_factory=list)

    @property
    def content(self) -> bytes:
        """A copy of the part's bytes."""
        return b"".join(self.pieces)


class _Reader:
    """Collects the parts while the parser goes through the body."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._field, self._value = bytearray(), bytearray()
        self._headers = 0
        self._disposition: bytes | None = None

    def begin(self) -> None:
        if len(self.parts) == _MAX_PARTS:
            raise _refused(f"it has more parts than the limit of {_MAX_PARTS}")
        self.parts.append(Part())
        self._headers, self._disposition = 0, None

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers += 1
        if self._headers > _MAX_PART_HEADERS:
            raise _refused(f"a part has more headers than the limit of {_MAX_PART_HEADERS}")
        if self._field.lower() == b"content-disposition":
            if self._disposition is not None:
                raise _refused("a part has two headers Content-Disposition")
            self._disposition = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise _refused('the Content-Disposition header field "name" must be provided')
        part = self.parts[-1]
        part.name = options[b"name"].decode("utf-8", "replace")
        part.is_file = b"filename" in options

    def content(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].pieces.append(memoryview(data)[start:end])


def parse(content_type: str, body: bytes) -> list[Part]:
    """The parts of `body`. Raises ServiceError INVALID_ARGUMENT."""
    _, options = parse_options_header(content_type)
    if b"boundary" not in options:
        raise _refused("Content-Type has no boundary")
    reader = _Reader()
    callbacks = {
        "on_part_begin": reader.begin,
        "on_header_field": reader.header_name,
        "on_header_value": reader.header_value,
        "on_header_end": reader.header_end,
        "on_headers_finished": reader.headers_end,
        "on_part_data": reader.content,
    }
    try:
        parser = MultipartParser(options[b"boundary"], callbacks)  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise _refused("it is not multipart/form-data") from None
    return reader.parts


def _refused(why: str) -> ServiceError:
    return ServiceError(Kind.INVALID_ARGUMENT, f"The multipart body cannot be read: {why}.")
