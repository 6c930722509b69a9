"""`efficientsam3 bench`: what the service takes on this machine."""

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli_common import CommandError, settings_of
from service.cli_variants import Store, artefact_of

if TYPE_CHECKING:
    from service.bench_sessions import Clip

app = typer.Typer(help="Measure the service on this machine.", no_args_is_help=True)


class Request(StrEnum):
    """What clients ask for."""

    TEXT = "text"
    CLICK = "click"


class Sync(StrEnum):
    """When Redis has its file written to disk."""

    ALWAYS = "always"
    EVERYSEC = "everysec"
    NO = "no"


@app.callback()
def bench() -> None:
    """Measure the service on this machine."""


@app.command()
def sessions(
    variant: Annotated[str, typer.Argument(help="The variant.")] = "demo",
    objects: Annotated[
        list[int] | None,
        typer.Option(min=1, max=25, help="Objects to follow; several: side by side.", show_default="1, 10"),
    ] = None,
    frames: Annotated[int, typer.Option(min=2, help="Frames that count, behind 20 that do not.")] = 200,
    video: Annotated[
        Path | None, typer.Option(help="Its frames, over and over.", show_default="a sample clip")
    ] = None,
    redis_url: Annotated[
        str, typer.Option(help="The session store.", show_default="a redis-server of its own")
    ] = "",
    appendfsync: Annotated[Sync, typer.Option(help="Of that redis-server.")] = Sync.EVERYSEC,
    store: Store = None,
    engine: Annotated[str, typer.Option(help="auto, openvino or onnxruntime.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, f32, bf16 or f16.")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads of the engine; 0: one per core.")] = 0,
) -> None:
    """Where a tracked frame's time goes, in one worker: medians by stage, and the session store's share.

    "Beside the next image encoder" is computed: what would be left of the share if a frame were written while
    the next one is encoded.
    """
    from model_store import artifact
    from service import bench_sessions

    folder = artefact_of(variant, store)
    clip = bench_sessions.read(video or Path(artifact.__file__).parent / "samples" / "traffic-lights.mp4")
    options = ("--engine", engine, "--precision", precision, "--threads", str(threads))
    with tempfile.TemporaryDirectory(prefix="efficientsam3-") as scratch:
        _measure(folder, clip, objects or [1, 10], frames, redis_url, appendfsync, options, Path(scratch))


@app.command()
def load(
    variant: Annotated[str, typer.Argument(help="The variant.")] = "demo",
    kind: Annotated[
        Request, typer.Option(help="What is asked: texts of new pictures, clicks on one.")
    ] = Request.TEXT,
    clients: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Clients at once; several: in turn.", show_default="1, 4, 16"),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Of which the medians are told.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each run.")] = 10.0,
    overload: Annotated[
        float, typer.Option(min=0, help="Then so many times as many requests as it can answer; 0: not.")
    ] = 0.0,
    overload_seconds: Annotated[float, typer.Option(min=1, help="For so long.")] = 60.0,
    engine_core: Annotated[int, typer.Option(help="The engine's core. All else runs on the others.")] = 0,
    store: Store = None,
    engine: Annotated[str, typer.Option(help="auto, openvino or onnxruntime.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, f32, bf16 or f16.")] = "auto",
) -> None:
    """What the service answers per second beside what its engine could if it did nothing else."""
    from model_store import artifact
    from service import bench_bare, bench_load
    from service.config import WorkerSettings

    folder = artefact_of(variant, store)
    picture = (Path(artifact.__file__).parent / "samples" / "street.jpg").read_bytes()
    cores = [core for core in range(os.cpu_count() or 1) if core != engine_core]
    settings = settings_of(
        WorkerSettings, engine=engine, precision=precision, threads=1, engine_cores=[engine_core]
    )
    work = bench_bare.Work(folder, kind.value, picture, "car")
    plan = bench_load.Plan(clients or [1, 4, 16], runs, seconds, overload, overload_seconds, cores)
    bench_load.run(work, plan, settings, typer.echo)


@app.command()
def overload(
    variant: Annotated[str, typer.Argument(help="The variant.")] = "demo",
    kind: Annotated[
        Request, typer.Option(help="What is asked: texts of new pictures, clicks on one.")
    ] = Request.CLICK,
    factor: Annotated[float, typer.Option(min=1, help="Load as a multiple of the sustainable rate.")] = 3.0,
    seconds: Annotated[float, typer.Option(min=1, help="Duration of the overload, in seconds.")] = 60.0,
    clients: Annotated[
        int, typer.Option(min=1, help="Concurrent clients that find the sustainable rate.")
    ] = 16,
    runs: Annotated[int, typer.Option(min=1, help="Number of their runs; the median is reported.")] = 3,
    run_seconds: Annotated[float, typer.Option(min=0.1, help="Duration of each of them, in seconds.")] = 10.0,
    generator_core: Annotated[int, typer.Option(min=0, help="Core of the load generator.")] = 0,
    service_core: Annotated[int, typer.Option(min=0, help="Core of the gateway and the worker.")] = 1,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Fail unless every request is answered or rejected as overloaded "
            "with Retry-After, and goodput is at least --least-goodput.",
        ),
    ] = False,
    least_goodput: Annotated[float, typer.Option(min=0, help="Goodput that --check expects.")] = 0.9,
    store: Store = None,
) -> None:
    """Send more requests than the service can answer; report its answers and how it rejects the rest."""
    from model_store import artifact
    from service import bench_bare, bench_overload

    if max(generator_core, service_core) >= (os.cpu_count() or 1):
        raise CommandError(f"--service-core, --generator-core: this machine has {os.cpu_count()} cores.")
    picture = (Path(artifact.__file__).parent / "samples" / "street.jpg").read_bytes()
    work = bench_bare.Work(artefact_of(variant, store), kind.value, picture, "car")
    plan = bench_overload.Plan(generator_core, service_core, clients, runs, run_seconds, factor, seconds)
    found = bench_overload.run(work, plan, typer.echo)
    if check and (faults := found.faults(least_goodput)):
        raise CommandError(" ".join(faults))


@app.command()
def hold(
    variant: Annotated[str, typer.Argument(help="The variant.")] = "demo",
    sessions: Annotated[int, typer.Option(min=0, help="Idle sessions.")] = 1000,
    streams: Annotated[
        int, typer.Option(min=0, help="Open streams of them, over HTTP and as many over gRPC.")
    ] = 500,
    connections: Annotated[int, typer.Option(min=0, help="Open HTTP connections.")] = 2000,
    store: Store = None,
) -> None:
    """What is kept for those who wait: memory of idle sessions, open streams and open connections, each."""
    from rich.console import Console
    from rich.progress import track

    from model_store import artifact
    from service import bench_hold

    if streams > sessions:
        raise CommandError(f"--streams {streams}: each is of another session, of which there are {sessions}.")
    folder = artefact_of(variant, store)
    picture = (Path(artifact.__file__).parent / "samples" / "street.jpg").read_bytes()
    console = Console(stderr=True)
    plan = bench_hold.Plan(sessions, streams, connections)
    bench_hold.run(folder, picture, plan, lambda steps, what: track(steps, what, console=console), typer.echo)


def _measure(
    artefact: Path,
    clip: "Clip",
    counts: Sequence[int],
    frames: int,
    redis_url: str,
    appendfsync: Sync,
    options: Sequence[str],
    scratch: Path,
) -> None:
    from rich.console import Console
    from rich.progress import track

    from service import bench_sessions, processes

    console = Console(stderr=True)
    with ExitStack() as stack:
        with console.status(f"starting {artefact.name}"):
            url = redis_url or stack.enter_context(processes.redis_server(scratch, appendfsync))
            address = stack.enter_context(processes.worker(artefact, scratch, *options, redis_url=url))
        measured = [
            bench_sessions.measure(
                address, clip, count, frames, partial(track, description=_objects(count), console=console)
            )
            for count in counts
        ]
    _print([_objects(count) for count in counts], bench_sessions.rows(measured))


def _print(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("median of a frame", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _objects(count: int) -> str:
    return f"{count} object{'s' * (count > 1)}"
