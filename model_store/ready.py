"""Ready artefacts from where somebody published them: a folder's files by HTTP, verified by one digest.

Whoever imported a variant puts the artefact's folder behind any web server or bucket; a machine that only
serves takes it from there, without torch. The digest is that of manifest.json, which holds those of all other
files.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from model_store import artifact, registry
from model_store.artifact import MANIFEST, ArtifactError, StoreError
from model_store.staging import staged

Report = Callable[[str, float], None]

MAX_MANIFEST_BYTES = 16 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
# Without an answer, or without another byte.
_TIMEOUT_S = 60.0


class TakeError(StoreError):
    """The artefact was not taken; the message says what of it and why."""


def take(name: str, address: str, digest: str, store: Path, report: Report) -> Path:
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
    with _client(address) as web, staged(store, name) as folder:
        _save(web, MANIFEST, digest, folder, report, at_most=MAX_MANIFEST_BYTES)
        manifest = artifact.read(folder)
        if manifest.variant != name:
            raise TakeError(f"the artefact at {address} is one of {manifest.variant}, not of {name}")
        for file, expected in artifact.digests(manifest).items():
            _save(web, file, expected, folder, report)
    return place


def _client(address: str) -> httpx.Client:
    # As it is on the server's disk: lengths are those of the files then.
    plain = {"accept-encoding": "identity"}
    base_url = address.rstrip("/") + "/"
    return httpx.Client(base_url=base_url, headers=plain, follow_redirects=True, timeout=_TIMEOUT_S)


def _is_there(place: Path, digest: str) -> bool:
    try:
        return artifact.load(place).digest == digest
    except ArtifactError:
        return False


def _save(
    web: httpx.Client, file: str, digest: str, folder: Path, report: Report, at_most: int | None = None
) -> None:
    """Write the file into the folder. Raises TakeError unless it came whole and has the digest."""
    so_far = hashlib.sha256()
    with _asked(web, file) as answer, (folder / file).open("wb") as saved:
        total = int(answer.headers.get("content-length", 0))
        count = 0
        for chunk in answer.iter_bytes():
            count += len(chunk)
            if at_most is not None and count > at_most:
                raise TakeError(
                    f"{web.base_url}{file} is more than {at_most} bytes, the most that a {file} has"
                )
            so_far.update(chunk)
            saved.write(chunk)
            report(file, min(1.0, count / total) if total else 0.0)
    report(file, 1.0)
    if so_far.hexdigest() != digest:
        raise TakeError(f"{web.base_url}{file} is not the file that was announced: its sha256 differs")


@contextmanager
def _asked(web: httpx.Client, file: str) -> Iterator[httpx.Response]:
    """The answer to a question for the file, its body not read yet. Raises TakeError, also from the block."""
    try:
        with web.stream("GET", file) as answer:
            if not answer.is_success:
                # Where it was sent on to may be signed.
                raise TakeError(f"{web.base_url}{file} cannot be had: HTTP status {answer.status_code}")
            yield answer
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TakeError(f"{web.base_url}{file} cannot be had: {error or type(error).__name__}") from error
