"""The stack of docker-compose.yml, for the compose test."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
# Grafana is not among them: it would only be looked at.
SERVICES = ("gateway", "worker", "redis", "prometheus")
DOCKER = os.environ.get("DOCKER", "docker")
_COMPOSE = (DOCKER, "compose", "--project-name", "efficientsam3-test")
_FILES = ("--file", str(ROOT / "docker-compose.yml"), "--file", str(HERE / "compose.yml"))


class Stack:
    """The stack, up."""

    def compose(self, *arguments: str) -> str:
        """What `docker compose` with the arguments prints. Raises CalledProcessError."""
        return _run(*_COMPOSE, *_FILES, *arguments)

    def address(self, service: str, port: int) -> str:
        """host:port on this machine, for a port of the service's."""
        return self.compose("port", service, str(port)).strip()

    def facts(self, service: str) -> dict[str, Any]:
        """What Docker says of the service's container."""
        container = self.compose("ps", "--all", "--quiet", service).strip()
        facts: dict[str, Any] = json.loads(_run(DOCKER, "inspect", container))[0]
        return facts

    def shell(self, service: str, command: str) -> subprocess.CompletedProcess[str]:
        """A command in the service's container, as whoever the container is."""
        inside = (*_COMPOSE, *_FILES, "exec", "--no-TTY", service, "bash", "-c", command)
        return subprocess.run(inside, capture_output=True, text=True)

    def kill(self, service: str) -> None:
        """End all processes of the service's container, none of which is asked; Docker starts it again."""
        self.shell(service, "kill -KILL -1")


@contextmanager
def composed() -> Iterator[Stack]:
    """The stack, up and healthy meanwhile; its logs are printed where the block fails."""
    _build("redis")
    _build("prometheus")
    stack = Stack()
    try:
        stack.compose("up", "--detach", "--wait", "--wait-timeout", "300", *SERVICES)
        yield stack
    except BaseException:
        print(stack.compose("logs", "--tail", "100"))
        raise
    finally:
        stack.compose("down", "--volumes", "--timeout", "40")


def _build(target: str) -> None:
    base = os.environ.get("BASE_IMAGE")
    _run(
        *(DOCKER, "build", "--target", target, "--tag", f"efficientsam3-test-{target}"),
        *(("--build-arg", f"BASE_IMAGE={base}") if base else ()),
        *os.environ.get("BUILD_OPTIONS", "").split(),
        str(HERE),
    )


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "DOCKER_BUILDKIT": "1"})
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout
