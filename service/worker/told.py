"""What a worker tells over HTTP, without TLS: its metrics, and whether it is ready."""

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server

READY = "/readyz"


def tell(address: str, registry: CollectorRegistry, ready: Callable[[], bool]) -> Callable[[], None]:
    """Listen at `host:port` in a thread of its own; how that is stopped.

    `/readyz` answers 200 while `ready` says so, else 503; any other address the metrics. Raises OSError where
    the address cannot be had.
    """
    host, _, port = address.rpartition(":")
    server, _ = start_http_server(int(port), host.strip("[]"), registry=registry)
    metrics: Any = server.get_app()

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] != READY:
            told: Iterable[bytes] = metrics(environ, start_response)
            return told
        status, text = ("200 OK", b"ready\n") if ready() else ("503 Service Unavailable", b"not ready\n")
        start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
        return [text]

    server.set_app(answer)

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop
