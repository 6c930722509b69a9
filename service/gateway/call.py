"""One request as the gateway sees it, whichever way it came, and the record kept of it."""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from service.errors import Kind, ServiceError, SlowReaderError
from service.gateway.keys import Key
from service.telemetry import FACTS, Telemetry
from service.tracing import Fact, current

_LOG = logging.getLogger("service.request")

Transport = Literal["http", "grpc"]

SLOW_READER = "slow_reader"
"""How a request is recorded whose answer its client did not read."""


@dataclass(slots=True)
class Call:
    """A request under way."""

    request_id: str
    transport: Transport
    # Its method and address: "POST /v1/segment", "/efficientsam3.v1.Segmentation/Segment".
    target: str
    # When it must be answered, in the event loop's time (seconds).
    deadline: float
    # The key that it came with; None: no keys are set.
    key: Key | None = None
    # The id that a session which it makes is to have.
    new_session: str = ""
    # The configured variant it asks for; empty until that is known.
    variant: str = ""
    # "ok", "cancelled", "slow_reader", or the error's kind.
    kind: str = "ok"
    started: float = field(default_factory=time.perf_counter)

    @property
    def owner(self) -> str:
        """Whose images and sessions it may use, by the key's name; empty: nobody's in particular."""
        return self.key.name if self.key else ""

    def ask_for(self, variant: str) -> None:
        """Note the configured variant that it asks for. Raises ServiceError FORBIDDEN if its key may not."""
        self.variant = variant
        allowed = self.key.variants if self.key else None
        if allowed is not None and variant not in allowed:
            detail = f"Key {self.owner} may not use variant {variant}, only: {', '.join(allowed) or 'none'}."
            raise ServiceError(Kind.FORBIDDEN, detail)

    def failed(self, error: ServiceError) -> None:
        """Note how it ended."""
        self.kind = SLOW_READER if isinstance(error, SlowReaderError) else error.kind.value


def note_slow_reader(scope: object) -> None:
    """Record the HTTP request of this ASGI scope, if any, as ended because its answer was not read."""
    call = scope.get("state", {}).get("call") if isinstance(scope, dict) else None
    if isinstance(call, Call):
        call.kind = SLOW_READER


@contextmanager
def recorded(call: Call, telemetry: Telemetry, left: type[Exception] | None = None) -> Iterator[None]:
    """Count, time and log the call when the block ends, with whatever it ended, and tell the current span.

    `left` is raised where the client is gone.
    """
    try:
        yield
    except ServiceError as error:
        call.failed(error)
        raise
    except (asyncio.CancelledError, GeneratorExit):
        # Whoever canceled it may have said why.
        call.kind = "cancelled" if call.kind == "ok" else call.kind
        raise
    except Exception as error:
        call.kind = "cancelled" if left and isinstance(error, left) else Kind.INTERNAL.value
        raise
    finally:
        seconds = time.perf_counter() - call.started
        telemetry.record_request(call.variant, call.transport, call.kind, seconds)
        current().tell({Fact.REQUEST_ID: call.request_id, Fact.VARIANT: call.variant})
        current().outcome(call.kind)
        facts = {
            "request_id": call.request_id,
            "key": call.owner,
            "target": call.target,
            "variant": call.variant,
            "kind": call.kind,
            "ms": round(seconds * 1000, 1),
        }
        said = "request_id=%s key=%s target=%r variant=%s kind=%s ms=%.1f"
        _LOG.info(said, *("-" if fact == "" else fact for fact in facts.values()), extra={FACTS: facts})
