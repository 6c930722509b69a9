"""`efficientsam3 serve`: the gateway in this process, and worker processes kept running beside it."""

import asyncio
import fcntl
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from service.config import ServeSettings
from service.gateway.router import Describe
from service.gateway.server import Gateway, Stop
from service.memory import bound_allocator, releasing_memory

_LOG = logging.getLogger(__name__)

# (variant, address to listen on, descriptor that reads EOF when the supervisor is gone) -> command line.
Command = Callable[[str, str, int], Sequence[str]]
Say = Callable[[str], None]

_FIRST_DELAY_S = 0.2
_MAX_DELAY_S = 30.0
# A worker that lived this long was healthy: its next restart is prompt again.
_STEADY_S = 30.0
# The kernel's limit on a Unix socket's path is 108 bytes on Linux and 104 elsewhere.
_MAX_SOCKET_PATH = 100
_PREFIX = "efficientsam3-"


class WorkerProcess:
    """Keeps one worker process running at one address, until it is stopped."""

    def __init__(self, name: str, command: Sequence[str], parent_fd: int) -> None:
        """`parent_fd` is handed down to the process. Starts it at once; build inside the event loop."""
        self._name = name
        self._command = command
        self._parent_fd = parent_fd
        self._process: asyncio.subprocess.Process | None = None
        self._keeping = asyncio.create_task(self._keep())

    async def stop(self, deadline: float, hurry: asyncio.Event) -> None:
        """SIGTERM, then SIGKILL at `deadline` (loop time) or on `hurry`. Returns when the process is gone."""
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        gone, hurrying = asyncio.create_task(process.wait()), asyncio.create_task(hurry.wait())
        left_s = max(0.0, deadline - asyncio.get_running_loop().time())
        await asyncio.wait((gone, hurrying), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        if not gone.done():
            _LOG.warning("%s did not stop in time and is killed", self._name)
            process.kill()
        await gone

    async def _keep(self) -> None:
        delay_s = _FIRST_DELAY_S
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            # In a process group of its own, so that Ctrl-C in a terminal reaches the supervisor alone. In a
            # session of its own Linux would schedule it apart from the gateway (autogroup): under a flood we
            # measured that a busy gateway kept a worker on the same core from running for seconds.
            # Canceled while it starts, asyncio kills the process itself.
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(self._parent_fd,),
                process_group=0,
            )
            code = await self._process.wait()
            if loop.time() - started > _STEADY_S:
                delay_s = _FIRST_DELAY_S
            _LOG.error("%s %s; starting it again in %g s", self._name, _ended(code), delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _MAX_DELAY_S)


async def serve(
    settings: ServeSettings,
    variants: Sequence[str],
    per_variant: int,
    command: Command,
    describe: Describe,
    say: Say,
) -> None:
    """Serve `variants`, each by `per_variant` workers, until SIGINT or SIGTERM. `say` tells a person.

    Raises ListenError when an address cannot be had, and ConfigurationError.
    """
    bound_allocator()
    stop = Stop.on_signals()
    with _runtime_folder() as folder:
        addresses = {
            variant: [f"unix:{folder}/{row}-{each}.sock" for each in range(per_variant)]
            for row, variant in enumerate(variants)
        }
        default = settings.default_variant or variants[0]
        gateway = await Gateway.start(
            settings.model_copy(update={"workers": addresses, "default_variant": default}), describe
        )
        # The write end stays with us alone: when we are gone, however we went, workers read EOF.
        parent_fd, ours = os.pipe()
        workers = [
            WorkerProcess(f"worker {variant}", command(variant, address, parent_fd), parent_fd)
            for variant, each in addresses.items()
            for address in each
        ]
        telling = asyncio.create_task(_tell(gateway, variants, say))
        try:
            async with releasing_memory():
                await stop.asked.wait()
            say("Stopping: finishing what was admitted. A second signal stops at once.")
        finally:
            telling.cancel()
            deadline = asyncio.get_running_loop().time() + settings.drain_s
            await gateway.stop(stop.hurry)
            await asyncio.gather(*(worker.stop(deadline, stop.hurry) for worker in workers))
            os.close(parent_fd)
            os.close(ours)


def worker_command(settings: ServeSettings, workers: int) -> Command:
    """The command line of our own workers, of which there are `workers` in all.

    Unless `settings.threads` says otherwise they share the processor's cores. Settings without an option
    reach them by the environment.
    """
    threads = settings.threads or (max(1, (os.cpu_count() or 1) // workers) if workers > 1 else 0)

    def command(variant: str, address: str, parent_fd: int) -> list[str]:
        return [
            *(sys.executable, "-m", "service.cli", "worker", variant),
            *("--listen", address, "--parent-fd", str(parent_fd), "--store", str(settings.store)),
            *("--engine", settings.engine, "--precision", settings.precision),
            *("--threads", str(threads)),
        ]

    return command


@contextmanager
def _runtime_folder() -> Iterator[Path]:
    """A private folder (0700) for sockets, its path short enough for them; it is in use while locked."""
    usual = tempfile.gettempdir()
    short = len(usual) + len(f"/{_PREFIX}12345678/10-10.sock") <= _MAX_SOCKET_PATH
    parent = usual if short else "/tmp"  # noqa: S108
    for left in Path(parent).glob(f"{_PREFIX}*"):
        _sweep(left)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent) as folder:
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield Path(folder)
        finally:
            os.close(lock)


def _sweep(folder: Path) -> None:
    """Remove the folder of a supervisor of this user that was killed: the lock went with it."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        inside = list(folder.iterdir())
        # One that is empty may be a moment old, and not locked yet; one with anything else is not ours.
        if inside and os.fstat(lock).st_uid == os.getuid() and all(each.is_socket() for each in inside):
            for each in inside:
                each.unlink()
            folder.rmdir()
    except OSError as error:
        _LOG.info("%s is left as it is: %s", folder, error)
    finally:
        os.close(lock)


async def _tell(gateway: Gateway, variants: Sequence[str], say: Say) -> None:
    say(f"Listening: HTTP {gateway.url}, gRPC {gateway.grpc_address}. Starting {', '.join(variants)} ...")
    for variant in variants:
        await gateway.router.pool(variant).wait_ready()
        say(f"{variant} is ready.")
    request = """'request={"prompts":[{"text":"truck"}]}'"""
    say(f"Try: curl -F image=@picture.jpg -F {request} {gateway.url}/v1/segment")


def _ended(code: int) -> str:
    """How a process ended, in words."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
