"""`make audit`: pinned and installed versions compared with advisories, where those can be reached."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[1] / "docker" / "requirements"
# An advisory was found, or the advisories could not be reached.
FOUND, UNREACHED = 1, 3
# What pip-audit and the libraries below it say where no advisory service answers.
_NO_NETWORK = (
    "ConnectionError",
    "ConnectError",
    "Max retries exceeded",
    "ServiceError",
    "timed out",
    "HTTPError",
)


def audit(command: Sequence[str] = (sys.executable, "-m", "pip_audit")) -> int:
    """Audit every lock file and this environment; print what is found; return the exit code."""
    targets = {path.name: ["--requirement", str(path)] for path in sorted(REQUIREMENTS.glob("*.txt"))}
    options = ["--disable-pip", "--no-deps", "--progress-spinner", "off", "--timeout", "15"]
    code = 0
    for name, target in {**targets, "this environment": ["--local"]}.items():
        asked = [*command, *target, *(options if name in targets else options[2:])]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=600)
        print(f"==> {name}\n{done.stdout.strip()}")
        if done.returncode == 0:
            continue
        if any(sign in done.stderr for sign in _NO_NETWORK):
            print(f"{name}: advisories could not be reached; nothing was checked", file=sys.stderr)
            return UNREACHED
        print(done.stderr.strip(), file=sys.stderr)
        code = FOUND
    return code


if __name__ == "__main__":
    sys.exit(audit())
