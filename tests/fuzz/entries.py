"""The table: every entry point of the service, its valid seeds, and what is sent to it instead."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.fuzz import bombs, images, offline, seeds, videos
from tests.fuzz.case import LIVE_IMAGE, LIVE_SESSION, Case
from tests.fuzz.mutations import chosen, edited_bytes, edited_json, json_bodies, json_text, protobufs

JSON = ("Content-Type", "application/json")
_IDS = st.sampled_from(
    (
        LIVE_SESSION,
        LIVE_IMAGE,
        "",
        ".",
        "..",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "%00",
        "demo.0",
        "demo." + 32 * "f",
        "unknown." + 32 * "f",
        "demo.000000000000-" + 33 * "0",
        "sha256:" + 64 * "F",
        "sha256%3A" + 64 * "0",
        "a" * 4000,
        "%ff%fe",
        "é",
        "x;y=z",
        "*",
        "demo%0d%0aX: y",
    )
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: how a case of it is sent, what is sent, and which routes and RPCs it covers.

    way: "http", "grpc", "websocket" or "raw" are methods of `senders.Sender`; "offline" runs in this process.
    weight: its share of the requests.
    """

    name: str
    way: str
    covers: tuple[str, ...]
    valid: Callable[[], Sequence[Case]]
    cases: SearchStrategy[Case]
    weight: int = 2


def _json_row(name: str, target: str, documents: Callable[[], list[Any]], weight: int = 2) -> Entry:
    """A route that takes JSON."""

    def valid() -> list[Case]:
        return [Case(name, target, (JSON,), (json_text(each),)) for each in documents()]

    cases = st.deferred(
        lambda: st.builds(
            lambda body, kind: Case(name, target, (kind,), (body,)),
            json_bodies(documents()),
            st.sampled_from((JSON,) * 9 + (("Content-Type", "application/json; charset=utf-16"), ("Content-Type", "text/json"))),
        )
    )
    return Entry(name, "http", (target,), valid, cases, weight)


@st.composite
def _multipart(draw: st.DrawFn, name: str, target: str, requests: Callable[[], list[Any]], file: str, content: bytes) -> Case:
    """Parts with an edited request, dropped, repeated or renamed; with odd headers; and edited bytes."""
    asked = json_text(edited_json(draw, chosen(draw, requests()), 2))
    parts = [(file, "file", "", content), ("request", "", "application/json", asked)]
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, max(0, len(parts) - 1)))
        match draw(st.integers(0, 3)):
            case 0:
                parts[at : at + 1] = parts[at : at + 1] * draw(st.sampled_from((0, 2, 40)))
            case 1 if parts:
                odd = draw(st.sampled_from(("", "x", "image", "request", "video", "im\u00e9", "a" * 3000, '"', "image\r\nX: y")))
                parts[at] = (odd, *parts[at][1:])
            case 2 if parts:
                odd = draw(st.sampled_from(("", "../../x", "a" * 9000, "\u732b", 'a"; name="request', "\0")))
                parts[at] = (parts[at][0], odd, *parts[at][2:])
            case _ if parts:
                kind = draw(st.sampled_from(("text/plain; charset=utf-7", "multipart/mixed; boundary=x", "application/x-gzip", "x")))
                parts[at] = (*parts[at][:2], kind, parts[at][3])
    body = bombs.multipart(*parts)
    if draw(st.integers(0, 4)) == 4:
        body = edited_bytes(draw, body, 3)
    kinds = (bombs.MULTIPART,) * 9 + (("Content-Type", "multipart/form-data"), ("Content-Type", "multipart/form-data; boundary=" + "b" * 300))
    return Case(name, target, (draw(st.sampled_from(kinds)),), (body,))


def _multipart_row(
    name: str, target: str, requests: Callable[[], list[Any]], file: str, content: Callable[[], bytes], weight: int = 2
) -> Entry:
    def valid() -> list[Case]:
        part = (file, "file", "", content())
        return [
            Case(name, target, (bombs.MULTIPART,), (bombs.multipart(part, ("request", "", "application/json", json_text(each))),))
            for each in requests()
        ]

    cases = st.deferred(lambda: _multipart(name, target, requests, file, content()))
    return Entry(name, "http", (target,), valid, cases, weight)


def _rpc_row(method: str, weight: int = 1) -> Entry:
    """An RPC: one edited message, or for a stream up to four."""
    name = "grpc." + method.rpartition("/")[2]
    streams = method.endswith(("/Track", "/ServerReflectionInfo"))

    def valid() -> list[Case]:
        each = [message.SerializeToString() for message in seeds.messages()[method]]
        # A stream's seeds are one conversation.
        if method.endswith("/Track"):
            return [Case(name, method, messages=(each[0], each[1])), Case(name, method, messages=(each[2], each[1]))]
        return [Case(name, method, messages=tuple(each))] if streams else [Case(name, method, messages=(one,)) for one in each]

    def cases() -> SearchStrategy[Case]:
        message = protobufs(seeds.messages()[method])
        if method.endswith("/TrackVideo"):
            # Who leaves in the middle of a video, too.
            left = st.sampled_from(((),) * 5 + ((("deadline", "0.05"),), (("deadline", "0.15"),)))
            return st.builds(lambda one, headers: Case(name, method, headers, (one,)), message, left)
        if not streams:
            return st.builds(lambda one: Case(name, method, messages=(one,)), message)
        first = st.sampled_from([case.messages[:1] for case in valid()])
        return st.builds(
            lambda head, rest: Case(name, method, messages=(*head, *rest)),
            st.one_of(first, st.just(())),
            st.lists(message, max_size=3).map(tuple),
        )

    return Entry(name, "grpc", (method,), valid, st.deferred(cases), weight)


def _ids_row(name: str, target: str, before: str = "", after: str = "", query: bool = False) -> Entry:
    """A route whose only input is an id in its path."""
    live = LIVE_IMAGE if "images" in target else LIVE_SESSION if "sessions" in target else "demo"
    method, _, path = target.partition(" ")
    head, _, tail = path.partition("{id}" if "{id}" in path else "{name}")

    def case(id: str) -> Case:
        return Case(name, f"{method} {head}{id}{tail}")

    return Entry(name, "http", (target,), lambda: [case(live)], st.builds(case, _IDS), 1)


@st.composite
def _carried_images(draw: st.DrawFn) -> Case:
    """An edited image file over any way that takes one."""
    return carried_image(draw(images.images()), draw(st.integers(0, 3)))


def carried_image(file: bytes, way: int = 0) -> Case:
    """The image file over one of four ways."""
    if way == 0:
        return Case("image.bytes", "POST /v1/segment", (bombs.MULTIPART,), (bombs.with_image(file),))
    if way == 1:
        return Case("image.bytes", "POST /v1/images", (bombs.MULTIPART,), (bombs.multipart(("image", "a", "", file)),))
    if way == 2:
        body = seeds.with_image({"prompts": [seeds.CLICK]}) | {"image": {"base64": seeds._base64(file)}}
        return Case("image.bytes", "POST /v1/segment", (JSON,), (json_text(body),))
    frame = json.dumps({"frame": 0, "prompts": [seeds.CLICK]}).encode()
    parts = (("image", "a", "", file), ("request", "", "application/json", frame))
    return Case("image.bytes", f"POST /v1/sessions/{LIVE_SESSION}/frames", (bombs.MULTIPART,), (bombs.multipart(*parts),))


def _valid_images() -> list[Case]:
    return [carried_image(file, index % 4) for index, file in enumerate(images.seeds().values())]


def carried_video(file: bytes) -> Case:
    """The video file over HTTP."""
    return Case("video.bytes", "POST /v1/videos/track", (bombs.MULTIPART,), (bombs.with_video(file),))


@st.composite
def _masks(draw: st.DrawFn) -> Case:
    """A click's image with one edited mask."""
    mask = edited_json(draw, chosen(draw, seeds.masks()), 2)
    body = seeds.with_image({"prompts": [{"mask": mask}]})
    return Case("mask", "POST /v1/segment", (JSON,), (json_text(body),))


_STREAM = f"/v1/sessions/{LIVE_SESSION}/stream"


def _valid_streams() -> list[Case]:
    inside = json_text(seeds.with_image(seeds.frames()[1])).decode()
    return [
        Case("session.stream", _STREAM, messages=(json.dumps(seeds.frames()[0]), seeds.png())),
        Case("session.stream", _STREAM, messages=(inside,)),
    ]


@st.composite
def _streams(draw: st.DrawFn) -> Case:
    """Text and binary messages in any order, edited; up to six."""
    documents = [*seeds.frames(), seeds.with_image(seeds.frames()[1]), {"frame": 0, "known_image": True, "revision": 1}, {"frame": 0, "key": "x"}]
    text = json_bodies(documents, 2).map(lambda body: body.decode("utf-8", "replace"))
    binary = st.one_of(st.just(seeds.png()), images.images())
    pairs = st.tuples(text, binary).map(list)
    kinds = st.one_of(pairs, text.map(lambda each: [each]), binary.map(lambda each: [each]))
    messages = tuple(each for some in draw(st.lists(kinds, min_size=1, max_size=3)) for each in some)
    path = _STREAM if draw(st.integers(0, 9)) else f"/v1/sessions/{draw(_IDS)}/stream".replace("\r", "").replace("é", "%c3")
    return Case("session.stream", path, messages=messages)


_HEADERS: dict[str, tuple[str, ...]] = {
    "Authorization": ("", "Bearer", "Bearer x", "Basic YTpi", "Bearer " + "k" * 9000, "bearer  secret-of-alice", "Bearer secret-of-alice,x", "Bearer \u00e9", "\u00ff", "Bearer secret-of-bob"),
    "X-Request-Id": ("", "a", "x" * 129, "a\tb", "<script>", "../..", "\u00e9", "sha256:x"),
    "X-Deadline-Ms": ("", "0", "-1", "1", "5", "600001", "9" * 40, "1e3", "\u0661", "0x10", " 20000", "nan"),
    "Origin": ("null", "http://evil.example", "", "https://127.0.0.1", "file://", "x" * 5000),
    "Host": ("", "evil.example", "127.0.0.1:1", "[::1]", "localhost", "a" * 3000, "127.0.0.1, evil.example"),
    "traceparent": ("00-0-0-00", "ff-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 3000),
    "tracestate": ("a=b", "=" * 2000),
    "Content-Length": ("-1", "+10", "0x10", "10, 10", "99999999999999999999", "1e1", "33554433", "\u0661"),
    "Transfer-Encoding": ("gzip", "chunked, chunked", "identity", "chunked\t"),
    "Content-Encoding": ("gzip", "br", "deflate, gzip"),
    "Expect": ("100-continue", "200-ok"),
    "Accept": ("text/html", "*/*;q=0", "application/grpc"),
    "Range": ("bytes=0-", "bytes=" + ",".join(f"{at}-" for at in range(500)), "bytes=5-1"),
    "If-Modified-Since": ("Thu, 01 Jan 1970 00:00:00 GMT", "x", "Thu, 01 Jan 99999 00:00:00 GMT"),
    "Connection": ("close", "upgrade", "keep-alive, x"),
    "Upgrade": ("websocket", "h2c", "x"),
    "Sec-WebSocket-Key": ("x", "dGhlIHNhbXBsZSBub25jZQ=="),
    "Cookie": ("a=" + "b" * 8000,),
    "Forwarded": ("for=127.0.0.1;host=evil", "for=\"[::1]\""),
    "X-Forwarded-For": ("127.0.0.1", "x" * 3000),
    "Access-Control-Request-Method": ("POST",),
}
_PATHS = (
    "GET /v1/variants", "GET /v1/variants/demo", "POST /v1/segment", "POST /v1/sessions", "GET /healthz", "GET /", "GET /page/app.js",
    "OPTIONS /v1/segment",
)


@st.composite
def _headers(draw: st.DrawFn) -> Case:
    """A simple request with up to four odd headers."""
    names = draw(st.lists(st.sampled_from(sorted(_HEADERS)), min_size=1, max_size=4))
    odd = [(name, draw(st.sampled_from(_HEADERS[name]))) for name in names]
    target = draw(st.sampled_from(_PATHS))
    body = (json_text(seeds.with_image({"prompts": [seeds.CLICK]})),) if target == "POST /v1/segment" else ()
    return Case("http.headers", target, (JSON, *odd), body)


_OPERATIONS = (
    "GET /healthz", "HEAD /healthz", "GET /readyz", "HEAD /readyz", "GET /metrics", "HEAD /metrics", "GET /docs",
    "GET /docs/oauth2-redirect", "GET /openapi.json", "HEAD /openapi.json", "GET /", "HEAD /",
    "GET /page/app.js", "GET /page/samples/samples.json", "GET /static-offline-docs/swagger-ui.css",
)


@st.composite
def _operations(draw: st.DrawFn) -> Case:
    """Documents, probes and files, at edited paths and with other methods."""
    method, _, path = draw(st.sampled_from(_OPERATIONS)).partition(" ")
    if draw(st.integers(0, 3)) == 3:
        method = draw(st.sampled_from(("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "A" * 99)))
    tails = ("", "/", "/../../pyproject.toml", "/..%2f..%2fpyproject.toml", "//", "%00", "?variant=", "?variant=unknown", "?variant=%ff&variant=demo", "?" + "a=b&" * 900, "#x", ";x", "%", "/.", "/con", "\\..\\x", "/%e9")
    return Case("http.operations", f"{method} {path}{draw(st.sampled_from(tails))}")


_HOSTS = ("127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "10.0.0.1", "169.254.169.254", "[fe80::1%25lo]", "[fd00::1]", "\u2460\u2461\u2467.0.0.1", "nothing.invalid")


@st.composite
def _urls(draw: st.DrawFn) -> Case:
    """Addresses of this machine in every disguise; none may be asked. No other host is ever named."""
    scheme = draw(st.sampled_from(("http", "https", "HTTP", "ftp", "file", "gopher", "data", "", "http:", "javascript")))
    host = draw(st.sampled_from(_HOSTS))
    user = draw(st.sampled_from(("", "", "user@", "user:pass@", "localhost:6666\\@", "a%40", "\\\\", "/@", "#@", "?@", "\t")))
    port = draw(st.sampled_from(("", "", ":80", ":443", ":22", ":0", ":65536", ":-1", ":x", ":80:80")))
    path = draw(st.sampled_from(("/", "", "/a.png", "/%0d%0aX:%20y", "/\r\nHost: x", "/" + "a" * 8200, "?x#y", "/\u732b", "/..")))
    body = {"image": {"url": f"{scheme}://{user}{host}{port}{path}"}, "prompts": [seeds.CLICK]}
    target = draw(st.sampled_from(("POST /v1/segment", "POST /v1/images")))
    if target.endswith("images"):
        del body["prompts"]
    return Case("image.url", target, (JSON,), (json_text(body),))


_RAW_HTTP = b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
_RAW_CHUNKED = b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@st.composite
def _raw_http(draw: st.DrawFn) -> Case:
    """Edited bytes of a request, sent as they are."""
    seed = draw(st.sampled_from((_RAW_HTTP, _RAW_CHUNKED, _RAW_HTTP + _RAW_HTTP, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", _PREFACE)))
    return Case("raw.http", "http", messages=(edited_bytes(draw, seed, 4),))


@st.composite
def _raw_http2(draw: st.DrawFn) -> Case:
    """The preface of HTTP/2, then frames of any type, length and stream."""
    frames = b"" if draw(st.integers(0, 5)) == 5 else b"\0\0\0\x04\0\0\0\0\0"
    for _ in range(draw(st.integers(0, 6))):
        body = draw(st.one_of(st.binary(max_size=20), st.just(b"\x82\x86\x84"), st.just(bytes(8)), st.just(b"\0\x04\xff\xff\xff\xff")))
        kind, flags = draw(st.integers(0, 12)), draw(st.sampled_from((0, 1, 4, 5, 8, 0xFF)))
        stream = draw(st.sampled_from((0, 1, 2, 3, 0x7FFF_FFFF, 0xFFFF_FFFF)))
        length = len(body) if draw(st.integers(0, 4)) else draw(st.sampled_from((0, 16384, 0xFF_FFFF)))
        frames += length.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body
    return Case("raw.http2", "grpc", messages=(_PREFACE + frames,))


_METADATA = ("authorization", "x-request-id", "x-owner", "x-session", "x-sessions", "grpc-accept-encoding", "traceparent", "retry_after_s")


@st.composite
def _metadata(draw: st.DrawFn) -> Case:
    """A call with odd metadata, deadlines, compression, and methods that there are none of."""
    names = draw(st.lists(st.sampled_from(_METADATA), max_size=3))
    odd = [(name, draw(st.sampled_from(("", "x", "Bearer x", "bob", "-1", "9" * 400, "alice", "a" * 4000)))) for name in names]
    if draw(st.integers(0, 3)) == 3:
        odd.append(("deadline", draw(st.sampled_from(("0.001", "0.02", "10000000")))))
    known = (f"{seeds.VARIANTS}ListVariants", f"{seeds.TRACKING}OpenSession", f"{seeds.SEGMENTATION}DeleteImage")
    target = draw(st.sampled_from((*known, f"{seeds.SEGMENTATION}Nothing", "/x/y", "/efficientsam3.v1.Tracking/", "/grpc.health.v1.Health/List")))
    return Case("grpc.metadata", target, tuple(odd), (draw(st.binary(max_size=4)),))


def _one(name: str, target: str, *headers: tuple[str, str]) -> Callable[[], list[Case]]:
    return lambda: [Case(name, target, headers)]


def _table() -> tuple[Entry, ...]:
    lists = "/v1/variants"
    whole = lambda: [seeds.with_image(each) for each in seeds.segments()]  # noqa: E731
    framed = lambda: [seeds.with_image(each) for each in seeds.frames()]  # noqa: E731
    kept = lambda: [{"variant": "demo"}, {}]  # noqa: E731
    frames = "POST /v1/sessions/{id}/frames".replace("{id}", LIVE_SESSION)
    return (
        _json_row("segment.json", "POST /v1/segment", whole, 4),
        _multipart_row("segment.multipart", "POST /v1/segment", seeds.segments, "image", seeds.png, 3),
        _json_row("images.json", "POST /v1/images", lambda: [seeds.with_image(each) for each in kept()]),
        _multipart_row("images.multipart", "POST /v1/images", kept, "image", seeds.png),
        _ids_row("images.delete", "DELETE /v1/images/{id}"),
        _ids_row("variants.one", "GET /v1/variants/{name}"),
        Entry("variants.list", "http", (f"GET {lists}",), _one("variants.list", f"GET {lists}"), st.just(Case("variants.list", f"GET {lists}")), 1),
        _json_row("sessions.open", "POST /v1/sessions", seeds.opening),
        _json_row("frames.json", frames, framed),
        _multipart_row("frames.multipart", frames, seeds.frames, "image", seeds.png),
        _ids_row("sessions.get", "GET /v1/sessions/{id}"),
        _ids_row("sessions.delete", "DELETE /v1/sessions/{id}"),
        _ids_row("sessions.fork", "POST /v1/sessions/{id}/fork"),
        Entry("session.stream", "websocket", ("WS /v1/sessions/{id}/stream",), _valid_streams, st.deferred(_streams), 4),
        _multipart_row("videos.multipart", "POST /v1/videos/track", seeds.videos_asked, "video", lambda: videos.seeds()["mp4"]),
        Entry("video.bytes", "http", ("POST /v1/videos/track",), lambda: list(map(carried_video, videos.seeds().values())), st.deferred(lambda: st.builds(carried_video, videos.videos())), 3),
        Entry("image.bytes", "http", ("POST /v1/segment", "POST /v1/images"), _valid_images, st.deferred(_carried_images), 8),
        Entry("mask", "http", ("POST /v1/segment",), lambda: [], st.deferred(_masks), 4),
        Entry("image.url", "http", ("POST /v1/segment", "POST /v1/images"), lambda: [], st.deferred(_urls), 2),
        Entry("http.headers", "http", (), lambda: [], st.deferred(_headers), 3),
        Entry("http.operations", "http", _OPERATIONS, lambda: [Case("http.operations", each) for each in _OPERATIONS], st.deferred(_operations), 2),
        Entry("raw.http", "raw", (), lambda: [], st.deferred(_raw_http), 2),
        *(_rpc_row(method, 3 if method.endswith(("/Segment", "/AddFrame", "/Track")) else 1) for method in seeds.messages()),
        Entry("grpc.metadata", "grpc", (), lambda: [], st.deferred(_metadata), 1),
        Entry("raw.http2", "raw", (), lambda: [], st.deferred(_raw_http2), 1),
        *(Entry(name, "offline", covers, valid, cases, 1) for name, covers, valid, cases in offline.rows()),
    )


ENTRIES: dict[str, Entry] = {entry.name: entry for entry in _table()}
