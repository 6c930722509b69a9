"""`make audit`: compares pinned and installed versions with advisories, where those can be reached."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REQUIREMENTS = Path(__file__).parents[1] / "docker" / "requirements"
# Exit codes: an advisory was found, and advisories could not be reached.
FOUND, UNREACHED = 1, 3


def audit(command: Sequence[str] = (sys.executable, "-m", "pip_audit")) -> int:
    """Audit every lock file and this environment, print the findings, and return the exit code."""
    targets = {path.name: ["--requirement", str(path)] for path in sorted(REQUIREMENTS.glob("*.txt"))}
    pinned = ["--disable-pip", "--no-deps"]
    code = 0
    for name, target in {**targets, "this environment": ["--local"]}.items():
        options = [*target, *(pinned if name in targets else [])]
        packages = _report([*command, *options, "--format", "json", "--progress-spinner", "off"])
        checked = [each for each in packages if "vulns" in each]
        if not checked:
            print(f"{name}: advisories could not be reached; nothing was checked", file=sys.stderr)
            return UNREACHED
        print(f"==> {name}: {len(checked)} of {len(packages)} packages were checked")
        for each in checked:
            for advisory in each["vulns"]:
                print(f"{each['name']} {each['version']}: {advisory['id']}")
                code = FOUND
    return code


def _report(command: Sequence[str]) -> list[dict[str, Any]]:
    """Return pip-audit's entries, one for each package; none where it ended without a report.

    An entry has `vulns`, or a `skip_reason` where no advisory service has the package.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    try:
        dependencies: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(done.stderr.strip(), file=sys.stderr)
        return []
    return dependencies


if __name__ == "__main__":
    sys.exit(audit())
