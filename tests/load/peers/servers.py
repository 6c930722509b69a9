"""The service and its peers as rows: how each is started, and how it is asked. And one of them, running."""

import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from service.cli_common import CommandError
from service.worker.cores import on_cores
from tests.load.peers.model import MOST_SEGMENTS, SCORE_THRESHOLD

ROOT = Path(__file__).parents[3]
PEERS = Path(__file__).parent

Segments = list[dict[str, Any]]

# Longer than a full-size student takes to be loaded and warmed.
_READY_S = 600.0
_ANSWER_S = 120.0
_STOP_S = 60.0
_AGAIN_S = 0.2


@dataclass(frozen=True, slots=True)
class Server:
    """One way to serve the graphs. All of them take the service's settings from the environment."""

    name: str
    # What follows the interpreter; `{port}` and `{variant}` are put in.
    command: tuple[str, ...]
    path: str
    # The JSON to send, of a picture in base64 and a text.
    asked: Callable[[str, str], dict[str, Any]]
    # What was found, of the JSON that came.
    found: Callable[[Any], Segments]
    # Under PEERS, where its server.py and its requirements.txt are; empty: ours, which needs no other.
    folder: str = ""

    @property
    def requirements(self) -> Path:
        """What its environment has, in pip's words."""
        return PEERS / self.folder / "requirements.txt"

    @property
    def version(self) -> str:
        """The peer's release."""
        return self.requirements.read_text().partition("==")[2].strip() if self.folder else "this"


def _ours(picture: str, text: str) -> dict[str, Any]:
    options = {"score_threshold": SCORE_THRESHOLD, "max_segments": MOST_SEGMENTS}
    return {"image": {"base64": picture}, "prompts": [{"text": text}], "options": options}


def _flat(picture: str, text: str) -> dict[str, Any]:
    return {"image": picture, "text": text}


def _module(folder: str) -> tuple[str, ...]:
    return "-m", f"tests.load.peers.{folder}.server"


def _segments(answer: Any) -> Segments:
    return list(answer["segments"])


OURS = Server(
    "ours",
    ("-m", "service.cli", "serve", "{variant}"),
    "/v1/segment",
    _ours,
    lambda answer: _segments(answer["results"][0]),
)
_BENTO = ("-m", "bentoml", "serve", "tests.load.peers.bentoml.server:Segment")
SERVERS = {
    server.name: server
    for server in (
        OURS,
        Server("LitServe", _module("litserve"), "/predict", _flat, _segments, "litserve"),
        Server(
            "BentoML",
            (*_BENTO, "--host", "127.0.0.1", "--port", "{port}"),
            "/segment",
            lambda picture, text: {"asked": [_flat(picture, text)]},
            lambda answer: _segments(answer[0]),
            "bentoml",
        ),
        Server("Ray Serve", _module("ray_serve"), "/", _flat, _segments, "ray_serve"),
        Server("mosec", _module("mosec"), "/inference", _flat, _segments, "mosec"),
    )
}


class FailedError(Exception):
    """A request was not answered; the message is short, and the same for the same cause."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    port: int
    process: int

    def connect(self) -> http.client.HTTPConnection:
        """A connection for one client."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=_ANSWER_S)

    def cpu_s(self) -> float:
        """Seconds of the processor that it has taken so far, with all that it started and that still runs."""
        total = 0.0
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.process)
            for each in (process, *process.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    times = each.cpu_times()
                    total += times.user + times.system
        return total


def post(connection: http.client.HTTPConnection, path: str, body: bytes) -> bytes:
    """The answer to a JSON. Raises FailedError, and the connection is made anew by the next call."""
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise FailedError(type(error).__name__) from error
    if response.status != http.client.OK:
        raise FailedError(f"status {response.status}")
    return answer


@contextmanager
def running(
    server: Server,
    python: Path,
    artefact: Path,
    cores: Sequence[int],
    settings: Mapping[str, object],
    first: bytes,
) -> Iterator[Running]:
    """The server of the artefact meanwhile, on `cores` but for its engine; it has answered `first`.

    `settings` are the service's. Raises CommandError that has the end of its log.
    """
    port, other = _free_port(), _free_port()
    named = {
        "store": artefact.parent,
        "default_variant": artefact.name,
        "http_port": port,
        "grpc_port": other,
        **settings,
    }
    environment = {
        **os.environ,
        **{f"EFFICIENTSAM3_{name.upper()}": str(each) for name, each in named.items()},
        "PYTHONPATH": str(ROOT),
        # Nothing is told to anybody.
        "RAY_USAGE_STATS_ENABLED": "0",
        "BENTOML_DO_NOT_TRACK": "True",
        # Ray's workers would give way to everybody, the clients among them.
        "RAY_worker_niceness": "0",
    }
    filled = [part.format(port=port, variant=artefact.name) for part in server.command]
    with tempfile.TemporaryFile("w+") as log, tempfile.TemporaryDirectory() as scratch:
        with on_cores(cores):
            process = subprocess.Popen(
                [python, *filled],
                stdout=log,
                stderr=log,
                env={**environment, "BENTOML_HOME": scratch},
                cwd=ROOT,
                start_new_session=True,
            )
        one = Running(port, process.pid)
        try:
            _wait(process, one, server.path, first)
            yield one
        except CommandError as error:
            log.seek(0)
            raise CommandError(f"{server.name}: {error}\n{log.read()[-2000:]}") from error
        finally:
            _stop(process)


def _wait(process: "subprocess.Popen[bytes]", one: Running, path: str, first: bytes) -> None:
    """Return once the server answers. Raises CommandError where it ends before, or takes too long."""
    deadline = time.monotonic() + _READY_S
    why = "nothing was said"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise CommandError(f"it ended with code {process.returncode}.")
        connection = one.connect()
        try:
            post(connection, path, first)
        except FailedError as error:
            why = str(error)
        else:
            return
        finally:
            connection.close()
        time.sleep(_AGAIN_S)
    raise CommandError(f"it did not become ready: {why}.")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Return when the server is gone, and with it whatever is left in its session."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    for each in psutil.pids():
        with suppress(ProcessLookupError):
            if os.getsid(each) == process.pid:
                os.kill(each, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
