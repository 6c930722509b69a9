"""Which workers there are: by the settings, by a file that may change, by names that are looked up."""

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Discriminator, Tag, TypeAdapter, ValidationError

from service.config import DNS, ConfigurationError, GatewaySettings, Served, WorkerAddress
from service.gateway.watched import WatchedFile

_LOG = logging.getLogger(__name__)

# Addresses by variant.
Workers = Mapping[str, Sequence[str]]


class _Until(BaseModel):
    """Workers that are there until a time: an artefact that is replaced keeps its sessions no longer."""

    model_config = ConfigDict(extra="forbid")

    workers: list[WorkerAddress]
    until: AwareDatetime

    @property
    def over(self) -> bool:
        return datetime.now(UTC) >= self.until


# Which of the two an entry is; not part of what its place is called.
_FOREVER, _UNTIL = "(always)", "(until)"
_Entry = Annotated[
    Annotated[list[WorkerAddress], Tag(_FOREVER)] | Annotated[_Until, Tag(_UNTIL)],
    Discriminator(lambda value: _UNTIL if isinstance(value, dict) else _FOREVER),
]
_File = dict[Served, _Entry]
_FILE: TypeAdapter[_File] = TypeAdapter(_File)


class Discovery:
    """Tells which addresses there are workers at, as often as it changes. Used from one event loop."""

    def __init__(self, settings: GatewaySettings, tell: Callable[[Workers], None]) -> None:
        """`tell` gets all of them. Raises ConfigurationError for a `workers_file` that cannot be."""
        self._settings, self._tell = settings, tell
        path = settings.workers_file
        self._file = WatchedFile(path, _read, "workers", _listed, _LOG) if path else None
        # What names stood for when they were looked up last.
        self._found: dict[str, tuple[str, ...]] = {}

    @property
    def named(self) -> dict[str, list[str]]:
        """Addresses as they are written, by variant: those of the settings, and of the file, as of now."""
        named = {variant: list(addresses) for variant, addresses in self._settings.workers.items()}
        for variant, entry in (self._file.says if self._file else {}).items():
            if isinstance(entry, list):
                named.setdefault(variant, []).extend(entry)
            elif not entry.over:
                named.setdefault(variant, []).extend(entry.workers)
        return named

    async def run(self) -> None:
        """Look again and again, for as long as anything may change."""
        while self._file or any(each.startswith(DNS) for named in self.named.values() for each in named):
            try:
                if self._file:
                    self._file.look()
                await self._look_up()
                self._tell(self.known())
            except Exception:
                _LOG.exception("looking for workers failed")
            await asyncio.sleep(self._settings.discovery_interval_s)

    def known(self) -> dict[str, list[str]]:
        """Addresses that can be called, by variant."""
        return {
            variant: list(dict.fromkeys(call for each in addresses for call in self._calls(each)))
            for variant, addresses in self.named.items()
        }

    def _calls(self, address: str) -> Sequence[str]:
        return self._found.get(address, ()) if address.startswith(DNS) else (address,)

    async def _look_up(self) -> None:
        names = {each for addresses in self.named.values() for each in addresses if each.startswith(DNS)}
        for name in names:
            host, _, port = name.removeprefix(DNS).rpartition(":")
            if (found := await _addresses(host, int(port))) is None:
                # Better those of before than none.
                continue
            if found != self._found.get(name):
                _LOG.info("%s stands for %s", name, ", ".join(found) or "no address")
            self._found[name] = found


async def _addresses(host: str, port: int) -> tuple[str, ...] | None:
    """What the name stands for; None where nobody can say just now."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
            return ()
        _LOG.warning("looking up %s failed: %s", host, error.strerror)
        return None
    ordered = sorted({str(place[0]) for *_, place in found})
    return tuple(f"[{each}]:{port}" if ":" in each else f"{each}:{port}" for each in ordered)


def _listed(workers: _File) -> str:
    return ", ".join(workers) or "none"


def _read(path: Path) -> _File:
    try:
        return _FILE.validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"workers_file {path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"] if part not in (_FOREVER, _UNTIL))
        raise ConfigurationError(
            f"workers_file {path}{', ' if place else ''}{place}: {first['msg']}"
        ) from None
