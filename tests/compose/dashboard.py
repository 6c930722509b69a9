"""The queries of the dashboard, as Grafana sends them."""

import json
from collections.abc import Iterator
from pathlib import Path

DASHBOARD = Path(__file__).parent.parent.parent / "deploy" / "dashboards" / "efficientsam3.json"
# What Grafana puts in their place, for all variants and a scrape every five seconds.
_VALUES = {"$__rate_interval": "20s", "$variant": ".*"}


def queries() -> Iterator[tuple[str, str]]:
    """The title of each panel with each of its queries."""
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"]
            for name, value in _VALUES.items():
                query = query.replace(name, value)
            yield panel["title"], query
