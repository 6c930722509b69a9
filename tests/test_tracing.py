"""What tracing costs where nobody asks for it, and what is said where it cannot be had."""

import os
import subprocess
import sys

import pytest

_TRACE = "0af7651916cd43dd8448eb211c80319c"
# A gateway that answers a request; then what the process has imported.
_SERVED = f"""
import asyncio, sys
import httpx
import service.cli, service.supervisor, service.worker.server
from service.config import GatewaySettings, LogSettings
from service.gateway.facts import describe
from service.gateway.server import Gateway
from service.telemetry import configure_logging

async def main():
    gateway = await Gateway.start(GatewaySettings(http_port=0, grpc_port=0), describe)
    async with httpx.AsyncClient() as client:
        traceparent = "00-{_TRACE}-b7ad6b7169203331-01"
        answer = await client.get(gateway.url + "/v1/variants", headers=dict(traceparent=traceparent))
        assert answer.status_code == 200
    await gateway.stop(asyncio.Event())

configure_logging(LogSettings())
asyncio.run(main())
print(*sys.modules)
"""
# As if the extra were not installed.
_WITHOUT = (
    "import sys; sys.modules['opentelemetry.sdk'] = None; from service.cli import main; main(sys.argv[1:])"
)
# The web framework and the client of Redis import of OpenTelemetry what they find, for uses of their own.
# What makes spans and sends them is imported by us alone.
_MACHINERY = {
    "service.tracing.exported",
    "opentelemetry.sdk.trace",
    "opentelemetry.exporter",
    "opentelemetry.proto",
}


def _run(code: str, *arguments: str, endpoint: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    environment = {**os.environ, "EFFICIENTSAM3_TRACE_ENDPOINT": endpoint}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(("endpoint", "imported"), [("", set()), ("http://127.0.0.1:9", _MACHINERY)])
def test_opentelemetry_is_imported_only_where_an_endpoint_is_configured(
    endpoint: str, imported: set[str]
) -> None:
    done = _run(_SERVED, endpoint=endpoint)
    assert done.returncode == 0, done.stderr
    assert _MACHINERY & set(done.stdout.split()) == imported
    (line,) = (line for line in done.stderr.splitlines() if "request_id=" in line)
    said = f" trace_id={_TRACE}" if endpoint else ""
    assert line.partition("ms=")[2].lstrip("0123456789.") == said


@pytest.mark.parametrize(
    "command",
    [
        "gateway --http-port 0 --grpc-port 0",
        "worker demo --listen 127.0.0.1:0",
    ],
)
def test_an_endpoint_without_the_extra_is_one_clear_line(command: str) -> None:
    done = _run(_WITHOUT, *command.split(), endpoint="http://127.0.0.1:4317")
    assert done.returncode == 2, done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("efficientsam3: trace_endpoint is set, which needs opentelemetry.sdk")
    assert line.endswith(": pip install 'efficientsam3-service[tracing]'")
    assert "Traceback" not in done.stderr
