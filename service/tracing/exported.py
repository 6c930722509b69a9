"""Spans that are seen, made with OpenTelemetry and sent to a collector in OTLP over gRPC.

Nothing else of ours imports it. Whoever ends a span puts it into a queue; a thread sends what is there. When
the collector is slow or away the queue is full after a while, and what comes then is dropped.
"""

import threading
import time
from collections.abc import Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import (
    Link,
    SpanKind,
    StatusCode,
    Tracer,
    TraceState,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace import Span as Recorded
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from service.errors import TABLE
from service.tracing import Carried, Fact, Facts, Span, Tracing

# Spans that wait to be sent, a few KB each.
_MAX_WAITING = 4096
_AT_ONCE = 512
# Those that are fewer wait this long for more.
_DELAY_MS = 1000
# How long one sending may take, its repetitions included.
_SEND_S = 10.0
# How long a process that stops waits for what was not sent yet: a collector that is away is not waited for.
_FLUSH_S = 3.0
# What is under way when time is up is cut off, which takes a moment.
_CUT_OFF_S = 0.5

_W3C = TraceContextTextMapPropagator()
# Those that are our fault: a request that is refused is no error of the service.
_FAULTS = {kind.value for kind, row in TABLE.items() if row.http_status >= 500}


class Exported(Tracing):
    """Makes spans, and sends them."""

    def __init__(self, endpoint: str, ratio: float, described: Mapping[str, str]) -> None:
        """Send to `endpoint`, http:// or https://, of traces that begin here the share `ratio`.

        `described`: attributes of this process.
        """
        self._exporter = OTLPSpanExporter(endpoint, insecure=endpoint.startswith("http://"), timeout=_SEND_S)
        self._provider = TracerProvider(
            sampler=ParentBased(_Beginnings(ratio)),
            resource=Resource.create(described),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter,
                max_queue_size=_MAX_WAITING,
                max_export_batch_size=_AT_ONCE,
                schedule_delay_millis=_DELAY_MS,
            )
        )
        self._tracer = self._provider.get_tracer("efficientsam3", described["service.version"])

    def request(self, name: str, carried: Carried, facts: Facts) -> Span:
        span = self._begun(name, carried, facts)
        return _Seen(self._tracer, name, facts, span) if span.is_recording() else _Passed(span)

    def stream(self, name: str, carried: Carried, facts: Facts) -> Span:
        span = self._begun(name, carried, facts)
        if not span.is_recording():
            return _Passed(span)
        span.end()
        return _Stream(self._tracer, name, facts, span)

    def close(self, within_s: float) -> None:
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(min(max(0.0, within_s), _FLUSH_S))
        if sending.is_alive():
            self._exporter.shutdown()
            sending.join(_CUT_OFF_S)

    def _begun(self, name: str, carried: Carried, facts: Facts) -> Recorded:
        # Of the caller alone: a context of OpenTelemetry's own is nobody's here.
        parent = _W3C.extract(carried, Context())
        return self._tracer.start_span(name, parent, SpanKind.SERVER, facts)


class _Beginnings(Sampler):
    """Which traces are begun here: a share of the requests, and all parts of a stream that is traced."""

    def __init__(self, ratio: float) -> None:
        self._share = TraceIdRatioBased(ratio)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        sampler = ALWAYS_ON if links else self._share
        return sampler.should_sample(parent_context, trace_id, name, kind, attributes, links)

    def get_description(self) -> str:
        return f"Beginnings{{{self._share.get_description()}}}"


class _Passed(Span):
    """A span of a trace that is not sampled: the worker hears that, and nothing is recorded."""

    def __init__(self, span: Recorded) -> None:
        self._context = set_span_in_context(span, Context())

    def headers(self) -> tuple[tuple[str, str], ...]:
        return _headers(self._context)


class _Stream(Span):
    """A stream, of which the opening alone is a span. What is known of it is so of its parts."""

    _part_kind = SpanKind.SERVER

    def __init__(self, tracer: Tracer, name: str, facts: Facts, span: Recorded) -> None:
        self._tracer, self._name, self._facts, self._span = tracer, name, facts, span
        self.trace_id = format_trace_id(span.get_span_context().trace_id)

    def part(self, name: str) -> Span:
        name, links = f"{self._name} {name}", [Link(self._span.get_span_context())]
        span = self._tracer.start_span(name, Context(), self._part_kind, self._facts, links)
        return _Seen(self._tracer, name, self._facts, span)


class _Seen(_Stream):
    """A span that is recorded, and sent when it ends."""

    _part_kind = SpanKind.INTERNAL

    def __init__(self, tracer: Tracer, name: str, facts: Facts, span: Recorded) -> None:
        super().__init__(tracer, name, facts, span)
        self._context = set_span_in_context(span, Context())
        self._kind = "ok"

    def tell(self, facts: Facts) -> None:
        self._span.set_attributes({name: fact for name, fact in facts.items() if fact})

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def outcome(self, kind: str) -> None:
        self._kind = kind

    def took(self, stage: str, ms: float) -> None:
        ended = time.time_ns()
        self._tracer.start_span(stage, self._context, start_time=ended - round(ms * 1e6)).end(ended)

    def asks(self, worker: str) -> Span:
        name = "ask worker"
        facts: Facts = {Fact.WORKER: worker}
        span = self._tracer.start_span(name, self._context, SpanKind.CLIENT, facts)
        return _Seen(self._tracer, name, facts, span)

    def headers(self) -> tuple[tuple[str, str], ...]:
        return _headers(self._context)

    def end(self) -> None:
        self._span.set_attribute(Fact.KIND, self._kind)
        if self._kind in _FAULTS:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


def _headers(context: Context) -> tuple[tuple[str, str], ...]:
    carried: dict[str, str] = {}
    _W3C.inject(carried, context)
    return tuple(carried.items())
