"""Keep `values.schema.json` true to the service. `python -m deploy.schema [--check]`.

The schema is written by hand, but for the definitions made here: the settings that values may set, from
service/config.py, and the names of variants, from the registry.
"""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings

from model_store import registry
from service.config import GatewaySettings, Limits, LogSettings, TraceSettings, WorkerSettings

SCHEMA = Path(__file__).parent / "efficientsam3" / "values.schema.json"

# What both processes must have alike: below `settings`.
SHARED = {name for kind in (Limits, LogSettings, TraceSettings) for name in kind.model_fields}
# What the chart sets from other values.
OF_GATEWAY = {
    "host",
    "http_port",
    "grpc_port",
    "tls_certificate",
    "tls_key",
    "tls_client_ca",
    "workers",
    "workers_file",
    "workers_ca",
    "workers_certificate",
    "workers_key",
    "workers_server_name",
    "redis_url",
    "keys_file",
    "default_variant",
    "drain_s",
}
OF_WORKER = {
    "device",
    "listen",
    "listen_certificate",
    "listen_key",
    "listen_client_ca",
    "metrics_listen",
    "store",
    "redis_url",
    "drain_s",
}


def definitions() -> dict[str, Any]:
    """The definitions that come from the service."""
    return {
        "sharedSettings": _settings(WorkerSettings, lambda name: name in SHARED),
        "gatewaySettings": _settings(GatewaySettings, lambda name: name not in SHARED | OF_GATEWAY),
        "workerSettings": _settings(WorkerSettings, lambda name: name not in SHARED | OF_WORKER),
        "variantName": {"enum": list(registry.variants())},
    }


def _settings(kind: type[BaseSettings], chosen: Any) -> dict[str, Any]:
    properties = kind.model_json_schema()["properties"]
    for each in properties.values():
        del each["title"]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: properties[name] for name in sorted(properties) if chosen(name)},
    }


def text() -> str:
    """What the file is to say."""
    schema = json.loads(SCHEMA.read_text("utf-8"))
    schema["$defs"].update(definitions())
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the file; with `--check` exit with 1 unless it is so already."""
    made = text()
    if "--check" not in sys.argv:
        SCHEMA.write_text(made, "utf-8")
    elif made != SCHEMA.read_text("utf-8"):
        raise SystemExit("values.schema.json is stale: run `make fix`")


if __name__ == "__main__":
    main()
