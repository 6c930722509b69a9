"""Odd headers, paths, addresses, bytes and metadata: what is sent around a body."""

from hypothesis import strategies as st

from tests.fuzz import seeds
from tests.fuzz.bodies import JSON
from tests.fuzz.case import Case
from tests.fuzz.mutations import edited_bytes, json_text

_HEADERS: dict[str, tuple[str, ...]] = {
    "Authorization": (
        "",
        "Bearer",
        "Bearer x",
        "Basic YTpi",
        "Bearer " + "k" * 9000,
        "bearer  secret-of-alice",
        "Bearer secret-of-alice,x",
        "Bearer \u00e9",
        "\u00ff",
        "Bearer secret-of-bob",
    ),
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
    "Forwarded": ("for=127.0.0.1;host=evil", 'for="[::1]"'),
    "X-Forwarded-For": ("127.0.0.1", "x" * 3000),
    "Access-Control-Request-Method": ("POST",),
}


_PATHS = (
    "GET /v1/variants",
    "GET /v1/variants/demo",
    "POST /v1/segment",
    "POST /v1/sessions",
    "GET /healthz",
    "GET /",
    "GET /page/app.js",
    "OPTIONS /v1/segment",
)


@st.composite
def headers(draw: st.DrawFn) -> Case:
    """A simple request with up to four odd headers."""
    names = draw(st.lists(st.sampled_from(sorted(_HEADERS)), min_size=1, max_size=4))
    odd = [(name, draw(st.sampled_from(_HEADERS[name]))) for name in names]
    target = draw(st.sampled_from(_PATHS))
    body = (json_text(seeds.with_image({"prompts": [seeds.CLICK]})),) if target == "POST /v1/segment" else ()
    return Case("http.headers", target, (JSON, *odd), body)


OPERATIONS = (
    "GET /healthz",
    "HEAD /healthz",
    "GET /readyz",
    "HEAD /readyz",
    "GET /metrics",
    "HEAD /metrics",
    "GET /docs",
    "GET /docs/oauth2-redirect",
    "GET /openapi.json",
    "HEAD /openapi.json",
    "GET /",
    "HEAD /",
    "GET /page/app.js",
    "GET /page/samples/samples.json",
    "GET /static-offline-docs/swagger-ui.css",
)


@st.composite
def operations(draw: st.DrawFn) -> Case:
    """Documents, probes and files, at edited paths and with other methods."""
    method, _, path = draw(st.sampled_from(OPERATIONS)).partition(" ")
    if draw(st.integers(0, 3)) == 3:
        method = draw(
            st.sampled_from(
                ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "A" * 99)
            )
        )
    tails = (
        "",
        "/",
        "/../../pyproject.toml",
        "/..%2f..%2fpyproject.toml",
        "//",
        "%00",
        "?variant=",
        "?variant=unknown",
        "?variant=%ff&variant=demo",
        "?" + "a=b&" * 900,
        "#x",
        ";x",
        "%",
        "/.",
        "/con",
        "\\..\\x",
        "/%e9",
    )
    return Case("http.operations", f"{method} {path}{draw(st.sampled_from(tails))}")


_HOSTS = (
    "127.0.0.1",
    "localhost",
    "[::1]",
    "0.0.0.0",
    "2130706433",
    "0x7f.1",
    "127.1",
    "[::ffff:127.0.0.1]",
    "10.0.0.1",
    "169.254.169.254",
    "[fe80::1%25lo]",
    "[fd00::1]",
    "\u2460\u2461\u2467.0.0.1",
    "nothing.invalid",
)


@st.composite
def urls(draw: st.DrawFn) -> Case:
    """Addresses of this machine in every disguise; none may be asked. No other host is ever named."""
    scheme = draw(
        st.sampled_from(("http", "https", "HTTP", "ftp", "file", "gopher", "data", "", "http:", "javascript"))
    )
    host = draw(st.sampled_from(_HOSTS))
    user = draw(
        st.sampled_from(
            ("", "", "user@", "user:pass@", "localhost:6666\\@", "a%40", "\\\\", "/@", "#@", "?@", "\t")
        )
    )
    port = draw(st.sampled_from(("", "", ":80", ":443", ":22", ":0", ":65536", ":-1", ":x", ":80:80")))
    path = draw(
        st.sampled_from(
            ("/", "", "/a.png", "/%0d%0aX:%20y", "/\r\nHost: x", "/" + "a" * 8200, "?x#y", "/\u732b", "/..")
        )
    )
    body = {"image": {"url": f"{scheme}://{user}{host}{port}{path}"}, "prompts": [seeds.CLICK]}
    target = draw(st.sampled_from(("POST /v1/segment", "POST /v1/images")))
    if target.endswith("images"):
        del body["prompts"]
    return Case("image.url", target, (JSON,), (json_text(body),))


_RAW_HEAD = b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_RAW_HTTP = _RAW_HEAD + b"Content-Length: 2\r\n\r\n{}"
_RAW_CHUNKED = _RAW_HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@st.composite
def raw_http(draw: st.DrawFn) -> Case:
    """Edited bytes of a request, sent as they are."""
    seed = draw(
        st.sampled_from(
            (
                _RAW_HTTP,
                _RAW_CHUNKED,
                _RAW_HTTP + _RAW_HTTP,
                b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
                _PREFACE,
            )
        )
    )
    return Case("raw.http", "http", messages=(edited_bytes(draw, seed, 4),))


@st.composite
def raw_http2(draw: st.DrawFn) -> Case:
    """The preface of HTTP/2, then frames of any type, length and stream."""
    frames = b"" if draw(st.integers(0, 5)) == 5 else b"\0\0\0\x04\0\0\0\0\0"
    for _ in range(draw(st.integers(0, 6))):
        body = draw(
            st.one_of(
                st.binary(max_size=20),
                st.just(b"\x82\x86\x84"),
                st.just(bytes(8)),
                st.just(b"\0\x04\xff\xff\xff\xff"),
            )
        )
        kind, flags = draw(st.integers(0, 12)), draw(st.sampled_from((0, 1, 4, 5, 8, 0xFF)))
        stream = draw(st.sampled_from((0, 1, 2, 3, 0x7FFF_FFFF, 0xFFFF_FFFF)))
        length = len(body) if draw(st.integers(0, 4)) else draw(st.sampled_from((0, 16384, 0xFF_FFFF)))
        frames += length.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body
    return Case("raw.http2", "grpc", messages=(_PREFACE + frames,))


_METADATA = (
    "authorization",
    "x-request-id",
    "x-owner",
    "x-session",
    "x-sessions",
    "grpc-accept-encoding",
    "traceparent",
    "retry_after_s",
)


@st.composite
def metadata(draw: st.DrawFn) -> Case:
    """A call with odd metadata, deadlines, compression, and methods that there are none of."""
    names = draw(st.lists(st.sampled_from(_METADATA), max_size=3))
    odd = [
        (name, draw(st.sampled_from(("", "x", "Bearer x", "bob", "-1", "9" * 400, "alice", "a" * 4000))))
        for name in names
    ]
    if draw(st.integers(0, 3)) == 3:
        odd.append(("deadline", draw(st.sampled_from(("0.001", "0.02", "10000000")))))
    known = (
        f"{seeds.VARIANTS}ListVariants",
        f"{seeds.TRACKING}OpenSession",
        f"{seeds.SEGMENTATION}DeleteImage",
    )
    target = draw(
        st.sampled_from(
            (
                *known,
                f"{seeds.SEGMENTATION}Nothing",
                "/x/y",
                "/efficientsam3.v1.Tracking/",
                "/grpc.health.v1.Health/List",
            )
        )
    )
    return Case("grpc.metadata", target, tuple(odd), (draw(st.binary(max_size=4)),))
