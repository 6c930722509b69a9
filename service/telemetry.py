"""Every metric, declared once, and the one place that configures logging."""

import json
import logging
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.config import LogSettings
from service.tracing import OFF, Tracing, current

# Under this name `extra` has what a record's message says, each fact by itself: strings and numbers.
FACTS = "facts"

# The cache that workers share.
_SHARED = "shared_embeddings"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


def service_version() -> str:
    """The installed distribution's version, or "unknown" when it runs from a checkout."""
    try:
        return version("efficientsam3-service")
    except PackageNotFoundError:
        return "unknown"


class Telemetry:
    """The metrics of a gateway, with a registry of their own, and what makes the spans of its requests.

    `variant` is a configured variant's name, or empty where the request never got as far as one.
    """

    def __init__(self, tracing: Tracing = OFF) -> None:
        self.tracing = tracing
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "efficientsam3_requests",
            "Requests answered. kind: ok, cancelled (the client left), or the error's kind",
            ["variant", "transport", "kind"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "efficientsam3_request_seconds",
            "From a request's first byte to its answer",
            ["variant", "transport"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.inflight = Gauge(
            "efficientsam3_inflight_requests",
            "Requests admitted and not answered yet: waiting for a worker, or running on one",
            ["variant"],
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "efficientsam3_stage_seconds",
            "Time of one request by stage, as its worker reports it",
            ["variant", "stage"],
            buckets=(0.0005, 0.001, 0.0025, *_SECONDS),
            registry=self.registry,
        )
        self.sessions = Counter(
            "efficientsam3_sessions",
            "Tracking sessions opened, forks among them",
            ["variant"],
            registry=self.registry,
        )
        self.session_bytes = Histogram(
            "efficientsam3_session_memory_bytes",
            "What is kept of a session's objects, observed after each of its frames",
            ["variant"],
            buckets=[1 << power for power in range(14, 31, 2)],
            registry=self.registry,
        )
        self.streams = Gauge(
            "efficientsam3_open_streams",
            "Tracking streams that are connected",
            ["transport"],
            registry=self.registry,
        )
        self.workers_ready = Gauge(
            "efficientsam3_workers_ready",
            "Workers ready to serve the variant",
            ["variant"],
            registry=self.registry,
        )
        _describe_process(self.registry)

    def declare_variant(self, variant: str) -> None:
        """Make the variant's gauges visible before its first request, at 0."""
        self.inflight.labels(variant).set(0)
        self.workers_ready.labels(variant).set(0)

    def record_request(self, variant: str, transport: str, kind: str, seconds: float) -> None:
        """Count one answered request and its duration."""
        self.requests.labels(variant, transport, kind).inc()
        self.request_seconds.labels(variant, transport).observe(seconds)

    def record_stages(self, variant: str, timings_ms: Mapping[str, float]) -> None:
        """Observe a worker's timings, in milliseconds by stage."""
        for stage, milliseconds in timings_ms.items():
            self.stage_seconds.labels(variant, stage).observe(milliseconds / 1000)

    def record_frame(self, variant: str, timings_ms: Mapping[str, float], memory_bytes: int) -> None:
        """Observe a frame of a session: its worker's timings, and what is kept after it."""
        self.record_stages(variant, timings_ms)
        self.session_bytes.labels(variant).observe(memory_bytes)

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """What became of what a cache was asked for, and what it holds."""

    hits: int
    # Made for the first who asked.
    misses: int
    # Waited for while it was made for another.
    joined: int
    evictions: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SharedCounts:
    """What became of what a store that workers share was asked for, and of what was to be written to it."""

    # Both by outcome.
    asked: Mapping[str, int]
    writes: Mapping[str, int]
    written_bytes: int


class WorkerTelemetry:
    """The metrics of one worker, with a registry of their own. All are labelled with its variant."""

    def __init__(self, variant: str) -> None:
        self.registry = CollectorRegistry()
        self._variant = variant
        self._queue_seconds = Histogram(
            "efficientsam3_worker_queue_seconds",
            "What a request waited for its turn on the worker",
            ["variant", "urgency"],
            buckets=(0.001, *_SECONDS),
            registry=self.registry,
        )
        self._refusals = Counter(
            "efficientsam3_worker_refusals",
            "Requests refused unworked. reason: full (the queue), "
            "share (an owner with less needed the place), "
            "deadline (it would pass in the queue), videos (as many as may be are tracked), "
            "decoding (too many large images wait)",
            ["variant", "reason"],
            registry=self.registry,
        )
        self._decoder_failures = Counter(
            "efficientsam3_decoder_failures",
            "Decoder processes that failed. reason: crashed (or was killed), or the limit: cpu, memory, time",
            ["variant", "reason"],
            registry=self.registry,
        )
        self._batch_rows = Histogram(
            "efficientsam3_engine_batch_rows",
            "Rows that the engine computed at once",
            ["variant", "graph"],
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self._engine_seconds = Histogram(
            "efficientsam3_engine_seconds",
            "What the engine took for a batch; the sum over all graphs is how long it was busy",
            ["variant", "graph"],
            buckets=(0.0005, 0.001, 0.0025, *_SECONDS),
            registry=self.registry,
        )
        _describe_process(self.registry)

    def waited(self, urgency: str, seconds: float) -> None:
        """Observe a request whose turn has come."""
        self._queue_seconds.labels(self._variant, urgency).observe(seconds)

    def refused(self, reason: str) -> None:
        """Count a request that was refused unworked."""
        self._refusals.labels(self._variant, reason).inc()

    def decoder_failed(self, reason: str) -> None:
        """Count a decoder process that failed."""
        self._decoder_failures.labels(self._variant, reason).inc()

    def ran(self, graph: str, rows: int, seconds: float) -> None:
        """Observe a batch. Any thread may call it."""
        self._batch_rows.labels(self._variant, graph).observe(rows)
        self._engine_seconds.labels(self._variant, graph).observe(seconds)

    def watch(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Have a gauge that is read whenever somebody looks."""
        gauge = Gauge(f"efficientsam3_{name}", meaning, ["variant"], registry=self.registry)
        gauge.labels(self._variant).set_function(read)

    def watch_caches(
        self, caches: Mapping[str, Callable[[], CacheCounts]], shared: Callable[[], SharedCounts] | None
    ) -> None:
        """Tell of the caches by these names, and of shared embeddings, whenever somebody looks. Once."""
        self.registry.register(_Caches(self._variant, caches, shared))


class _Caches(Collector):
    """The counts of caches, as metrics."""

    def __init__(
        self,
        variant: str,
        caches: Mapping[str, Callable[[], CacheCounts]],
        shared: Callable[[], SharedCounts] | None,
    ) -> None:
        self._variant, self._caches, self._shared = variant, caches, shared

    def collect(self) -> Iterator[Metric]:
        asked = CounterMetricFamily(
            "efficientsam3_cache_requests",
            "What a cache was asked for. outcome: hit, miss, or joined (waited for, while it was made); of "
            "shared_embeddings also error (no answer in time), damaged, or skipped (it failed just now)",
            labels=["variant", "cache", "outcome"],
        )
        evicted = CounterMetricFamily(
            "efficientsam3_cache_evictions", "What made room for others", labels=["variant", "cache"]
        )
        size = GaugeMetricFamily("efficientsam3_cache_bytes", "What it holds", labels=["variant", "cache"])
        for name, read in self._caches.items():
            counts = read()
            outcomes = {"hit": counts.hits, "miss": counts.misses, "joined": counts.joined}
            for outcome, count in outcomes.items():
                asked.add_metric([self._variant, name, outcome], count)
            evicted.add_metric([self._variant, name], counts.evictions)
            size.add_metric([self._variant, name], counts.bytes)
        if self._shared is not None:
            shared = self._shared()
            for outcome, count in shared.asked.items():
                asked.add_metric([self._variant, _SHARED, outcome], count)
            yield from self._written(shared)
        yield from (asked, evicted, size)

    def _written(self, shared: SharedCounts) -> Iterator[Metric]:
        writes = CounterMetricFamily(
            "efficientsam3_cache_writes",
            "What was to be kept for other workers. outcome: written, failed, or dropped (too many at once)",
            labels=["variant", "cache", "outcome"],
        )
        for outcome, count in shared.writes.items():
            writes.add_metric([self._variant, _SHARED, outcome], count)
        size = CounterMetricFamily(
            "efficientsam3_cache_written_bytes", "Of what was written", labels=["variant", "cache"]
        )
        size.add_metric([self._variant, _SHARED], shared.written_bytes)
        yield from (writes, size)


def _describe_process(registry: CollectorRegistry) -> None:
    build = Gauge("efficientsam3_build_info", "Always 1", ["version", "python"], registry=registry)
    build.labels(service_version(), platform.python_version()).set(1)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)


class _Json(logging.Formatter):
    """A record as a line of JSON, with its `facts`."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FACTS, {}),
        }
        if trace_id := current().trace_id:
            told["trace_id"] = trace_id
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


class _Text(logging.Formatter):
    """A record as a line of text."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        trace_id = current().trace_id
        return super().formatMessage(record) + (f" trace_id={trace_id}" if trace_id else "")


def configure_logging(settings: LogSettings) -> None:
    """Send records to standard error, a line for each, as the settings say."""
    text = _Text("%(asctime)s %(levelname)s %(name)s %(message)s")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if settings.log_format == "json" else text)
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    # They repeat what our own lines and answers say, or what clients sent, keys among it.
    for name in ("uvicorn.error", "httpx", "httpcore", "websockets", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)
