"""What docs/observability.md is to say."""

import re
from pathlib import Path

PAGE = (Path(__file__).parent.parent / "docs" / "observability.md").read_text("utf-8")
# A table of metrics has this before it.
GATEWAY, WORKER = "### Of the gateway", "### Of a worker"

_METRIC = re.compile(r"# HELP (efficientsam3_\w+) (.+)\n# TYPE \w+ (\w+)\n")


def rows(exposition: str) -> list[str]:
    """The table's rows for these metrics, in Prometheus' text format; not those that all processes have."""
    return [
        f"| `{name}` | {kind} | {meaning} |"
        for name, meaning, kind in _METRIC.findall(exposition)
        if not name.endswith("_created")
    ]


def table(heading: str) -> list[str]:
    """The rows of metrics that stand below the heading."""
    section = PAGE.partition(f"{heading}\n")[2].partition("\n#")[0]
    return [line for line in section.splitlines() if line.startswith("| `efficientsam3_")]
