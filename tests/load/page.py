"""`python -m tests.load.page PAGE`: run the commands of a page's console blocks, and put their output there.

A block begins with ```` ```console ````, and its commands with `$ `. What they say on their standard error is
shown while they run, and is no part of the page. The page is written after every block, so that what was
measured before a failure stays.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMPT = "$ "


def measured(page: str, run: Callable[[str], str]) -> Iterator[str]:
    """The page after each of its blocks was run, one after another; `run` gives a command's output."""
    for index in range(len(_BLOCK.findall(page))):
        block = list(_BLOCK.finditer(page))[index]
        commands = [line for line in block[1].splitlines() if line.startswith(_PROMPT)]
        lines = "".join(f"{command}\n{run(command.removeprefix(_PROMPT))}" for command in commands)
        page = page[: block.start(1)] + lines + page[block.end(1) :]
        yield page


def _run(command: str) -> str:
    print(f"==> {command}", file=sys.stderr, flush=True)
    beside = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        command, shell=True, check=True, stdout=subprocess.PIPE, text=True, env=beside
    ).stdout


if __name__ == "__main__":
    path = Path(sys.argv[1])
    for page in measured(path.read_text("utf-8"), _run):
        path.write_text(page, "utf-8")
