"""Files of keys for tests, written as an operator's tool would."""

import hashlib
import json
from pathlib import Path
from typing import Any


class KeysFile:
    """A file of keys that a test changes. Each name's key is `secret-of-NAME`, unless it is told another."""

    def __init__(self, path: Path, **entries: dict[str, Any]) -> None:
        self.path = path
        self.write(**entries)

    def write(self, **entries: dict[str, Any]) -> None:
        """The whole file anew: `alice={"concurrent": 1}`; `"key"` is another than the usual one."""
        lines = []
        for name, entry in entries.items():
            limits = dict(entry)
            key = limits.pop("key", secret(name))
            values = {"sha256": hashlib.sha256(key.encode()).hexdigest(), **limits}
            lines.append(f"[keys.{name}]")
            # What JSON writes of numbers, texts and lists of them is TOML, too.
            lines += [f"{field} = {json.dumps(value)}" for field, value in values.items()]
        self.replace("\n".join(lines).encode())

    def replace(self, text: bytes) -> None:
        """In one step, so that nobody reads half of it."""
        other = self.path.with_suffix(".new")
        other.write_bytes(text)
        other.replace(self.path)


def secret(name: str) -> str:
    """The key of that name."""
    return f"secret-of-{name}"


def authorization(name: str) -> dict[str, str]:
    """The header that brings the key of that name."""
    return {"Authorization": f"Bearer {secret(name)}"}
