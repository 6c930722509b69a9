"""`python -m tests.load.peers`: the same graphs and prompts behind the service and its peers."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from platformdirs import user_cache_path
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from model_store import artifact as artifacts
from service.cli_common import CommandError, expected, wrong_usage
from service.cli_variants import Store, artefact_of
from tests.load.peers.environments import python_of
from tests.load.peers.servers import OURS, SERVERS
from tests.load.peers.side_by_side import Plan, Say, as_json, as_table, measure, steps

# Pictures and texts on which all have to agree; the first is what is measured.
_SAMPLES = (
    ("street", "car"),
    ("pets", "animal"),
    ("fruit", "apple"),
    ("farm", "horse"),
    ("shapes", "circle"),
)


def main(
    variant: Annotated[str, typer.Argument(help="The variant, in the store or the package.")] = "demo",
    store: Store = None,
    peer: Annotated[
        list[str] | None, typer.Option(help="Only this one beside ours; several: these.", show_default="all")
    ] = None,
    clients: Annotated[
        list[int] | None, typer.Option(min=1, help="At once; several: in turn.", show_default="1, 4, 16")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="In each of which every server is started once.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each run, for each number of clients.")] = 10.0,
    requests: Annotated[
        int, typer.Option(min=0, help="At least so many in all, for each server and number of clients.")
    ] = 1000,
    engine_core: Annotated[int, typer.Option(help="The engine's core. All else runs on the others.")] = 0,
    precision: Annotated[str, typer.Option(help="auto, f32 or bf16.")] = "auto",
    max_batch: Annotated[int, typer.Option(min=1, help="Requests of a batch.")] = 8,
    environments: Annotated[
        Path | None, typer.Option(help="Folder of the peers' environments.", show_default="the user's cache")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the figures as JSON.", show_default="standard output")
    ] = None,
) -> None:
    """The same graphs and prompts behind the service, LitServe, BentoML, Ray Serve and mosec."""
    folder = artefact_of(variant, store)
    if unknown := set(peer or ()) - SERVERS.keys():
        raise CommandError(f"there is no {min(unknown)}; there are {', '.join(SERVERS)}.", usage=True)
    samples = Path(artifacts.__file__).parent / "samples"
    settings = {
        "engine": "openvino",
        "precision": precision,
        "threads": 1,
        "engine_cores": [engine_core],
        "max_batch": max_batch,
    }
    cores = [core for core in range(os.cpu_count() or 1) if core != engine_core]
    asked = [((samples / f"{name}.jpg").read_bytes(), text) for name, text in _SAMPLES]
    plan = Plan(folder, asked, clients or [1, 4, 16], runs, seconds, requests, cores, settings)
    console = Console(stderr=True)
    servers = {}
    for server in SERVERS.values():
        if server is OURS or not peer or server.name in peer:
            with console.status(f"{server.name}: its environment"):
                servers[server] = python_of(server, environments or user_cache_path("efficientsam3-peers"))
    with _progress(console, steps(len(servers), plan)) as say:
        rows = measure(servers, plan, say)
    typer.echo(as_table(rows))
    facts = {"variant": variant, "digest": artifacts.load(folder).digest, "cores": cores, **settings}
    shown = as_json(rows, {**facts, "versions": {each.name: each.version for each in servers}})
    if out:
        out.write_text(shown + "\n")
    else:
        typer.echo(shown)


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Say]:
    """A bar on standard error; the yielded function takes what is done next, and of which server."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total)

        def say(what: str, server: str) -> None:
            progress.update(task, description=f"{server}: {what}")
            progress.advance(task)

        yield say


if __name__ == "__main__":
    # Told to end, it stops the server that runs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        typer.run(main)
    except Exception as error:
        message = expected(error)
        if message is None:
            raise
        typer.echo(message, err=True)
        sys.exit(2 if wrong_usage(error) else 1)
