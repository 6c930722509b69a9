"""Ready artefacts from where somebody published them: a folder's files by HTTP, verified by one digest.

Whoever imported a variant puts the artefact's folder behind any web server or bucket; a machine that only
serves takes it from there, without torch. The digest is that of manifest.json, which holds those of all other
files. The server is not trusted with anything: bytes, time, redirects and names are bounded, and what came is
checked as a whole before it appears in the store.
"""

import asyncio
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model_store import artifact, download, registry
from model_store.artifact import MANIFEST, MAX_MANIFEST_BYTES, ArtifactError, Manifest, StoreError
from model_store.download import DownloadError, Limits
from model_store.staging import staged

__all__ = ["MAX_MANIFEST_BYTES", "Bounds", "TakeError", "take"]

Report = Callable[[str, float], None]

_DIGEST = re.compile(r"[0-9a-f]{64}")


class TakeError(StoreError):
    """The artefact was not taken; the message says what of it and why."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an artefact, and fetching it, may take."""

    # All files together, bytes.
    total_bytes: int = 64 << 30
    # A file that is neither a graph's nor its weights, such as the tokenizer, bytes.
    other_bytes: int = 256 << 20
    # The whole transfer, seconds.
    total_s: float = 6 * 3600.0
    # Without an answer, or without another byte, seconds.
    idle_s: float = 60.0
    # Bytes per second, on average over each `idle_s`.
    least_rate: float = 1024.0
    # From one file's address to where it is in the end.
    redirects: int = 5


DEFAULT_BOUNDS = Bounds()


def take(
    name: str, address: str, digest: str, store: Path, report: Report, bounds: Bounds = DEFAULT_BOUNDS
) -> Path:
    """The variant's artefact, brought into the store unless it is there.

    Args:
        address: of the folder, http:// or https://; its files are below it, `<address>/manifest.json`.
        digest: sha256 of the manifest, in hexadecimal digits.
        report: called with ("<file>", fraction 0..1) as bytes come in.

    Raises:
        registry.UnknownVariantError: no variant has that name.
        TakeError: it cannot be had, or it is not the artefact of that digest and variant.
        StoreError: the disk is full.
    """
    registry.find(name)
    if not _DIGEST.fullmatch(digest):
        raise TakeError(
            f"digest {digest!r} is no sha256: 64 hexadecimal digits, as sha256sum {MANIFEST} prints"
        )
    if not address.startswith(("http://", "https://")):
        raise TakeError(f"{address!r} is no address of a folder: it begins with http:// or https://")
    place = store / name
    if _is_there(place, digest):
        return place
    with staged(store, name) as folder:
        try:
            asyncio.run(_fetch(name, address, digest, folder, report, bounds))
        except DownloadError as error:
            raise TakeError(str(error)) from error
        except TimeoutError as error:
            raise TakeError(
                f"{address} takes longer than {bounds.total_s:g} s for the artefact, which is the limit: "
                "take it from a faster server, or copy its folder into the store"
            ) from error
        # Links, external data of graphs: everything that is checked before an artefact is loaded.
        artifact.load(folder)
    return place


def _is_there(place: Path, digest: str) -> bool:
    try:
        return artifact.load(place).digest == digest
    except ArtifactError:
        return False


async def _fetch(name: str, address: str, digest: str, folder: Path, report: Report, bounds: Bounds) -> None:
    """Write the artefact's files into the folder. Raises TimeoutError, DownloadError and StoreError."""
    limits = Limits(bounds.idle_s, bounds.least_rate, bounds.redirects)
    async with asyncio.timeout(bounds.total_s), download.client(address, limits) as web:

        async def save(file: str, expected: str, most: int) -> None:
            saved = folder / file
            got = await web.save(file, saved, most, lambda fraction: report(file, fraction))
            if got != expected:
                raise TakeError(
                    f"{web.address}{file} is not the file that was announced: its sha256 differs; "
                    "compare the digest with the publisher's"
                )

        await save(MANIFEST, digest, MAX_MANIFEST_BYTES)
        manifest = artifact.read(folder)
        if manifest.variant != name:
            raise TakeError(f"the artefact at {address} is one of {manifest.variant}, not of {name}")
        sizes = _sizes(manifest, bounds)
        _check_total(manifest, sizes, folder, bounds)
        for file, expected in artifact.digests(manifest).items():
            await save(file, expected, sizes[file])


def _sizes(manifest: Manifest, bounds: Bounds) -> dict[str, int]:
    """The most bytes that each file may have: of a graph and its weights, what the manifest says."""
    sizes = dict.fromkeys(artifact.digests(manifest), bounds.other_bytes)
    for graph in manifest.graphs.values():
        sizes[graph.file] = graph.bytes
        if (weights := f"{graph.file}.data") in sizes:
            sizes[weights] = graph.bytes
    return sizes


def _check_total(manifest: Manifest, sizes: dict[str, int], folder: Path, bounds: Bounds) -> None:
    """Raise unless the artefact is of an allowed size and there is room for it."""
    graphs = sum(graph.bytes for graph in manifest.graphs.values())
    if graphs > bounds.total_bytes:
        raise TakeError(
            f"the artefact has {graphs} bytes, and {bounds.total_bytes} are the most that is taken: "
            "copy its folder into the store"
        )
    free = shutil.disk_usage(folder).free
    if graphs > free:
        raise StoreError(
            f"there is no room in {folder.parents[1]} for the artefact: it needs {graphs / 1e6:.1f} MB, "
            f"{free / 1e6:.1f} MB are free"
        )
