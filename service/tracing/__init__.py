"""Spans of requests: where each spent its time, across gateway and worker.

Where no endpoint is configured there are none: what stands here then does nothing, and nothing here imports
OpenTelemetry. `exported` makes the spans that somebody sees.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum

from service.config import ConfigurationError, TraceSettings
from service.errors import Kind, ServiceError

# Attributes. Never an image, a prompt's text or a key; no session's id either, which is all that some need to
# use it.
Facts = Mapping[str, str]
# A request's headers or metadata, of which W3C's `traceparent` and `tracestate` are read.
Carried = Mapping[str, str]


class Fact(StrEnum):
    """The attributes that a span may have: OpenTelemetry's names where it has one."""

    HTTP_METHOD = "http.request.method"
    # The address, with names in the place of what differs from one request to the next.
    HTTP_ROUTE = "http.route"
    RPC_METHOD = "rpc.method"
    REQUEST_ID = "efficientsam3.request_id"
    VARIANT = "efficientsam3.variant"
    # "ok", "cancelled", or the error's kind.
    KIND = "efficientsam3.kind"
    # The address of the worker that is asked.
    WORKER = "efficientsam3.worker"


class Span:
    """A piece of work that nobody sees. Any thread may use it."""

    # Hexadecimal, as backends show it; empty: the request is not traced.
    trace_id = ""

    def tell(self, facts: Facts) -> None:
        """Add attributes; an empty one is none."""

    def rename(self, name: str) -> None:
        """Call it otherwise, now that more is known."""

    def outcome(self, kind: str) -> None:
        """How it ended: "ok", as it does unless this is called, "cancelled", or an error's kind."""

    def took(self, stage: str, ms: float) -> None:
        """A stage of it has ended now that took so many milliseconds: a span beneath this one."""

    def asks(self, worker: str) -> "Span":
        """One call to the worker at this address: a span beneath this one."""
        return self

    def part(self, name: str) -> "Span":
        """One message of a stream, or one frame of a video: a span in a trace of its own, linked to this."""
        return self

    def headers(self) -> tuple[tuple[str, str], ...]:
        """What the other side of a call is told, for its spans to lie beneath this one."""
        return ()

    def end(self) -> None:
        """It has ended. Once."""


NOTHING = Span()


class Tracing:
    """Makes the spans of what comes from outside; here: none. Any thread may use it."""

    def request(self, name: str, carried: Carried, facts: Facts) -> Span:
        """A request that comes; beneath the caller's span, if it `carried` one."""
        return NOTHING

    def stream(self, name: str, carried: Carried, facts: Facts) -> Span:
        """A stream that opens. Its span is over at once; those of its messages are `part`s of it."""
        return NOTHING

    def close(self, within_s: float) -> None:
        """Send what was not sent yet, and give up what takes longer. Blocks."""


OFF = Tracing()

_CURRENT: ContextVar[Span] = ContextVar("span", default=NOTHING)


def current() -> Span:
    """The span that the current task or thread works for."""
    return _CURRENT.get()


@contextmanager
def ending(span: Span) -> Iterator[Span]:
    """End the span with the block, and note what the block raises."""
    try:
        yield span
    except ServiceError as error:
        span.outcome(error.kind)
        raise
    except (asyncio.CancelledError, GeneratorExit):
        span.outcome("cancelled")
        raise
    except Exception:
        span.outcome(Kind.INTERNAL)
        raise
    finally:
        span.end()


@contextmanager
def within(span: Span) -> Iterator[Span]:
    """In the block it is `current`."""
    before = _CURRENT.get()
    _CURRENT.set(span)
    try:
        yield span
    finally:
        # Not by a token: a generator that is cut off is closed in another context, where one is not taken.
        _CURRENT.set(before)


def open_tracing(settings: TraceSettings, process: str, version: str, variant: str = "") -> Tracing:
    """The spans that the settings ask for, of a process "gateway", or "worker" of a variant.

    Raises ConfigurationError where they are asked for and the extra `tracing` is not installed.
    """
    if not settings.trace_endpoint:
        return OFF
    try:
        from service.tracing.exported import Exported
    except ModuleNotFoundError as error:
        needs = f"trace_endpoint is set, which needs {error.name}"
        raise ConfigurationError(f"{needs}: pip install 'efficientsam3-service[tracing]'") from error
    described = {"service.name": f"efficientsam3-{process}", "service.version": version}
    if variant:
        described[Fact.VARIANT] = variant
    return Exported(settings.trace_endpoint, settings.trace_sample_ratio, described)
