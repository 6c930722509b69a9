# ruff: noqa: N802 - gRPC's method names
"""A collector of spans: it takes OTLP over gRPC on a real socket, and keeps what comes."""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

SERVER = trace_pb2.Span.SPAN_KIND_SERVER
CLIENT = trace_pb2.Span.SPAN_KIND_CLIENT
INTERNAL = trace_pb2.Span.SPAN_KIND_INTERNAL


@dataclass(frozen=True)
class Seen:
    """A span that came; ids in hexadecimal, times in nanoseconds."""

    # What it came from: "efficientsam3-gateway", "efficientsam3-worker".
    process: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    # (trace, id) of the spans that it is linked to.
    links: tuple[tuple[str, str], ...]
    facts: dict[str, Any]
    failed: bool
    start: int
    end: int


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """What came, and whether more is taken at once."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        # What came, to the byte.
        self.raw: list[bytes] = []
        self.port = 0
        self.arrived = threading.Event()
        # Until it is set nobody is answered.
        self.open = threading.Event()
        self.open.set()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self.arrived.set()
        self.open.wait()
        self.raw.append(request.SerializeToString())
        for group in request.resource_spans:
            process = _facts(group.resource.attributes)["service.name"]
            self.spans += [_seen(process, span) for each in group.scope_spans for span in each.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def one(self, name: str, **wanted: str) -> Seen:
        """The only span of that name that is so."""
        (found,) = self.named(name, **wanted)
        return found

    def named(self, name: str, **wanted: str) -> list[Seen]:
        """The spans of that name whose fields are so, in the order in which they began."""
        found = [
            each
            for each in self.spans
            if each.name == name and all(getattr(each, field) == value for field, value in wanted.items())
        ]
        return sorted(found, key=lambda each: each.start)

    def beneath(self, span: Seen) -> list[Seen]:
        """Those that lie right beneath it, in the order in which they began."""
        found = [each for each in self.spans if (each.trace, each.parent) == (span.trace, span.id)]
        return sorted(found, key=lambda each: each.start)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens meanwhile."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(max_workers=4), options=[("grpc.so_reuseport", 0)])
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector
    finally:
        collector.open.set()
        server.stop(None).wait()


def _seen(process: str, span: trace_pb2.Span) -> Seen:
    return Seen(
        process,
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        _facts(span.attributes),
        span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
    )


def _facts(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
