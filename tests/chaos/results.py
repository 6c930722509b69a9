"""The figures of pieces: appended to a file, added up, and shown as a table."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from tests.chaos.runner import Piece

_FIGURES = {
    "sessions": "sessions opened",
    "frames_answered": "frames answered",
    "retries": "retries by the clients",
    "errors": "transient or documented errors",
    "rivals_refused": "rival requests refused as frame_conflict",
    "rollbacks": "session_rolled_back after a fault that loses writes",
    "sessions_lost_by_design": "sessions lost to a flush, a stale replica or corruption, and reported so",
    "sessions_lost": "sessions lost otherwise",
    "differing_bits": "differing bits",
    "violations": "violations",
}


def append(file: Path, piece: Piece, commit: str) -> None:
    """Append the figures of a piece as a line of JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    line = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "seed": piece.options.seed,
        "seconds": piece.options.seconds,
        "without": sorted(_left_out(piece)),
        "faults": piece.faults,
        **piece.figures,
    }
    with file.open("a", encoding="utf-8") as output:
        output.write(json.dumps(line) + "\n")


def _left_out(piece: Piece) -> set[str]:
    from tests.chaos.faults import KINDS

    return {kind.name for kind in KINDS} - {kind.name for kind in piece.options.kinds}


def lines(file: Path) -> list[dict[str, Any]]:
    """Return the figures of every piece in the file."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []


def table(title: str, pieces: list[dict[str, Any]]) -> Table:
    """Return the sum of the pieces' figures."""
    shown, faults = Table("", "total", title=title), Counter[str]()
    shown.columns[1].justify = "right"
    for piece in pieces:
        faults.update(piece["faults"])
    for name, count in sorted(faults.items()):
        shown.add_row(name, f"{count:,}")
    shown.add_row("faults", f"{faults.total():,}", end_section=True, style="bold")
    for name, label in _FIGURES.items():
        shown.add_row(label, f"{sum(piece[name] for piece in pieces):,}")
    return shown
