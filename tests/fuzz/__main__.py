"""`make fuzz`: send malformed requests to every entry point of a service that runs for real.

FUZZ_S, FUZZ_SEED, FUZZ_ONLY, FUZZ_JOBS and FUZZ_HANG_S are the options' defaults.
The exit code is 1 on any finding.
"""

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.fuzz import case as cases
from tests.fuzz.case import CORPUS
from tests.fuzz.entries import ENTRIES
from tests.fuzz.hunt import Found
from tests.fuzz.runner import Options, Run, tell
from tests.fuzz.target import running


def _arguments() -> argparse.Namespace:
    default = os.environ.get
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=float(default("FUZZ_S") or 300), help="Time for drawn cases."
    )
    parser.add_argument("--seed", type=int, default=int(default("FUZZ_SEED") or random.randrange(1, 10**9)))
    parser.add_argument(
        "--only", action="append", choices=sorted(ENTRIES), default=(default("FUZZ_ONLY") or "").split()
    )
    parser.add_argument(
        "--jobs", type=int, default=int(default("FUZZ_JOBS") or 3), help="Processes, one connection each."
    )
    parser.add_argument(
        "--hang-s", type=float, default=float(default("FUZZ_HANG_S") or 15), help="Longer is a hang."
    )
    parser.add_argument(
        "--replay", type=Path, action="append", help="Send these files of the corpus and no more."
    )
    parser.add_argument("--no-save", action="store_true", help="Write nothing into the corpus.")
    return parser.parse_args()


def main() -> int:
    """The exit code."""
    arguments, console = _arguments(), Console()
    options = Options(arguments.seconds, arguments.seed, arguments.jobs, arguments.hang_s, arguments.only)
    known = {path.name for path in CORPUS.glob("*.json")}

    def save(found: Found) -> Path | None:
        if arguments.no_save or arguments.replay or not found.seed or found.finding.rule == "memory":
            return None
        told = {
            "rule": found.finding.rule,
            "detail": found.finding.detail[:300],
            "log": found.log,
            "seed": found.seed,
        }
        path = cases.save(found.case, told)
        return None if path.name in known else path

    console.print(f"seed {options.seed}; again: FUZZ_SEED={options.seed} make fuzz", highlight=False)
    with tempfile.TemporaryDirectory(prefix="efficientsam3-fuzz-") as folder, running(Path(folder)) as target:
        run = Run(target, options, console)
        if arguments.replay:
            run.replay(arguments.replay)
        else:
            run.whole()
        tell(run, save)
    return 1 if run.found else 0


if __name__ == "__main__":
    sys.exit(main())
