"""The table: every entry point of the service, its valid seeds, and what is sent to it instead."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.fuzz import bodies, bombs, envelopes, offline, seeds, videos
from tests.fuzz.bodies import JSON
from tests.fuzz.case import LIVE_IMAGE, LIVE_SESSION, Case
from tests.fuzz.mutations import json_bodies, json_text, protobufs


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
            json_bodies(documents),
            st.sampled_from(
                (JSON,) * 9
                + (("Content-Type", "application/json; charset=utf-16"), ("Content-Type", "text/json"))
            ),
        )
    )
    return Entry(name, "http", (target,), valid, cases, weight)


def _multipart_row(
    name: str,
    target: str,
    requests: Callable[[], list[Any]],
    file: str,
    content: Callable[[], bytes],
    weight: int = 2,
) -> Entry:
    def valid() -> list[Case]:
        part = (file, "file", "", content())
        return [
            Case(
                name,
                target,
                (bombs.MULTIPART,),
                (bombs.multipart(part, ("request", "", "application/json", json_text(each))),),
            )
            for each in requests()
        ]

    cases = st.deferred(lambda: bodies.multipart_bodies(name, target, requests, file, content()))
    return Entry(name, "http", (target,), valid, cases, weight)


def _rpc_row(method: str, weight: int = 1) -> Entry:
    """An RPC: one edited message, or for a stream up to four."""
    name = "grpc." + method.rpartition("/")[2]
    streams = method.endswith(("/Track", "/ServerReflectionInfo"))

    def valid() -> list[Case]:
        each = [message.SerializeToString() for message in seeds.messages()[method]]
        # A stream's seeds are one conversation.
        if method.endswith("/Track"):
            return [
                Case(name, method, messages=(each[0], each[1])),
                Case(name, method, messages=(each[2], each[1])),
            ]
        return (
            [Case(name, method, messages=tuple(each))]
            if streams
            else [Case(name, method, messages=(one,)) for one in each]
        )

    def cases() -> SearchStrategy[Case]:
        message = protobufs(lambda: seeds.messages()[method])
        if method.endswith("/TrackVideo"):
            # Who leaves in the middle of a video, too.
            left = st.sampled_from(((),) * 5 + ((("deadline", "0.05"),), (("deadline", "0.15"),)))
            return st.builds(lambda one, metadata: Case(name, method, metadata, (one,)), message, left)
        if not streams:
            return st.builds(lambda one: Case(name, method, messages=(one,)), message)
        first = st.integers(0, len(valid()) - 1).map(lambda index: valid()[index].messages[:1])
        return st.builds(
            lambda head, rest: Case(name, method, messages=(*head, *rest)),
            st.one_of(first, st.just(())),
            st.lists(message, max_size=3).map(tuple),
        )

    return Entry(name, "grpc", (method,), valid, st.deferred(cases), weight)


def _ids_row(name: str, target: str) -> Entry:
    """A route whose only input is an id in its path."""
    live = LIVE_IMAGE if "images" in target else LIVE_SESSION if "sessions" in target else "demo"
    method, _, path = target.partition(" ")
    head, _, tail = path.partition("{id}" if "{id}" in path else "{name}")

    def case(id: str) -> Case:
        return Case(name, f"{method} {head}{id}{tail}")

    return Entry(name, "http", (target,), lambda: [case(live)], st.builds(case, bodies.IDS), 1)


def _one(name: str, target: str, *headers: tuple[str, str]) -> Callable[[], list[Case]]:
    return lambda: [Case(name, target, headers)]


def _table() -> tuple[Entry, ...]:
    lists, both = "/v1/variants", ("POST /v1/segment", "POST /v1/images")
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
        Entry(
            "variants.list",
            "http",
            (f"GET {lists}",),
            _one("variants.list", f"GET {lists}"),
            st.just(Case("variants.list", f"GET {lists}")),
            1,
        ),
        _json_row("sessions.open", "POST /v1/sessions", seeds.opening),
        _json_row("frames.json", frames, framed),
        _multipart_row("frames.multipart", frames, seeds.frames, "image", seeds.png),
        _ids_row("sessions.get", "GET /v1/sessions/{id}"),
        _ids_row("sessions.delete", "DELETE /v1/sessions/{id}"),
        _ids_row("sessions.fork", "POST /v1/sessions/{id}/fork"),
        Entry(
            "session.stream",
            "websocket",
            ("WS /v1/sessions/{id}/stream", "WS /{path:path}"),
            bodies.valid_streams,
            st.deferred(bodies.streams),
            4,
        ),
        _multipart_row(
            "videos.multipart",
            "POST /v1/videos/track",
            seeds.videos_asked,
            "video",
            lambda: videos.seeds()["mp4"],
        ),
        Entry(
            "video.bytes",
            "http",
            ("POST /v1/videos/track",),
            lambda: list(map(bodies.carried_video, videos.seeds().values())),
            st.deferred(lambda: st.builds(bodies.carried_video, videos.videos())),
            3,
        ),
        Entry(
            "image.bytes",
            "http",
            ("POST /v1/segment", "POST /v1/images"),
            bodies.valid_images,
            st.deferred(bodies.carried_images),
            8,
        ),
        Entry("mask", "http", ("POST /v1/segment",), lambda: [], st.deferred(bodies.masks), 4),
        Entry("image.url", "http", both, lambda: [], st.deferred(envelopes.urls), 2),
        Entry("http.headers", "http", (), lambda: [], st.deferred(envelopes.headers), 3),
        Entry(
            "http.operations",
            "http",
            envelopes.OPERATIONS,
            lambda: [Case("http.operations", each) for each in envelopes.OPERATIONS],
            st.deferred(envelopes.operations),
            2,
        ),
        Entry("raw.http", "raw", (), lambda: [], st.deferred(envelopes.raw_http), 2),
        *(
            _rpc_row(method, 3 if method.endswith(("/Segment", "/AddFrame", "/Track")) else 1)
            for method in seeds.messages()
        ),
        Entry(
            "grpc.metadata", "grpc", (f"{seeds.HEALTH}List",), lambda: [], st.deferred(envelopes.metadata), 1
        ),
        Entry("raw.http2", "raw", (), lambda: [], st.deferred(envelopes.raw_http2), 1),
        *(Entry(name, "offline", covers, valid, cases, 1) for name, covers, valid, cases in offline.rows()),
    )


ENTRIES: dict[str, Entry] = {entry.name: entry for entry in _table()}
