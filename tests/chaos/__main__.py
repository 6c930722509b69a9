"""`python -m tests.chaos`: disturb a deployment for a while and verify what its clients saw.

Exits with 1 if a promise of docs/guarantees.md was broken.
"""

import asyncio
import os
import random
import subprocess
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tests.chaos import results
from tests.chaos.faults import KINDS
from tests.chaos.history import OK, History
from tests.chaos.runner import Options, Piece, run

_NAMES = ", ".join(kind.name for kind in KINDS)
_SHOWN = 20


def main(
    seconds: Annotated[
        float, typer.Option(envvar="CHAOS_S", min=1, help="Duration of the faults, in seconds.")
    ] = 300.0,
    seed: Annotated[
        int | None, typer.Option(envvar="CHAOS_SEED", help="Seed of the faults.", show_default="random")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help=f"A kind of fault to leave out: {_NAMES}.", show_default="none")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="A kind of fault to inject, and no other.", show_default="all")
    ] = None,
    folder: Annotated[
        Path, typer.Option(help="Folder of the results file, the histories and the logs.")
    ] = Path("build/chaos"),
    total: Annotated[bool, typer.Option("--total", help="Only print the sum of all pieces so far.")] = False,
) -> None:
    """Disturb a deployment of the embedded variant, and verify the history that its clients recorded."""
    console, file = Console(), folder / "results.jsonl"
    if total:
        _print_sum(console, file)
        return
    if unknown := {*(without or ()), *(only or ())} - {kind.name for kind in KINDS}:
        raise typer.BadParameter(f"{min(unknown)} is not a kind of fault; the kinds are {_NAMES}.")
    kinds = [
        each for each in KINDS if each.name in (only or [each.name]) and each.name not in (without or ())
    ]
    seed = random.randrange(1 << 30) if seed is None else seed
    console.print(f"seed {seed}: repeat it with CHAOS_SEED={seed} CHAOS_S={seconds:g} make chaos")
    where = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{seed}"
    piece = _shown(console, Options(seconds, seed, where.resolve(), kinds))
    results.append(file, piece, _commit())
    console.print(results.table(f"this piece: {seconds:g} s, seed {seed}", results.lines(file)[-1:]))
    _print_sum(console, file)
    for violation in piece.violations[:_SHOWN]:
        console.print(f"[red]{violation.promise}[/]: {violation.session} at {violation.at_s:.1f} s: ", end="")
        console.print(violation.detail, markup=False)
    if piece.violations:
        console.print(f"[red]{len(piece.violations)} violations[/]; history and logs are in {where}")
        raise typer.Exit(1)


def _shown(console: Console, options: Options) -> Piece:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[say]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=options.seconds, say="")

        def tell(elapsed_s: float, history: History) -> None:
            frames = sum(call.action == "frame" and call.outcome == OK for call in history.calls)
            last = history.faults[-1].name if history.faults else ""
            say = f"{frames} frames, {len(history.faults)} faults, last: {last}"
            what = "disturbing" if elapsed_s < options.seconds else "finishing"
            progress.update(task, description=what, completed=elapsed_s, say=say)

        return asyncio.run(run(options, tell))


def _print_sum(console: Console, file: Path) -> None:
    pieces = results.lines(file)
    minutes = sum(piece["seconds"] for piece in pieces) / 60
    console.print(results.table(f"all {len(pieces)} pieces: {minutes:.1f} minutes", pieces))


def _commit() -> str:
    told = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    return told.stdout.strip() or os.environ.get("CHAOS_COMMIT", "")


if __name__ == "__main__":
    typer.run(main)
