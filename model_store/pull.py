"""Released files from the Hugging Face hub, verified by the hub's own digest."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model_store import hub, registry
from model_store.artifact import sha256_of
from model_store.hub import PullError, Report


@dataclass(frozen=True, slots=True)
class Pulled:
    """One released file, in the hub's cache."""

    path: Path
    repository: str
    # Path inside the repository: the first of the file's names that it has.
    file: str
    # Hash of the commit.
    revision: str
    # Of the file's bytes, which are those that the hub's digest names.
    sha256: str
    bytes: int

    def origin(self) -> dict[str, str]:
        """Where the file came from, for the manifest of what is made of it."""
        return {"repository": self.repository, "revision": self.revision, "path": self.file}


def pullable(name: str) -> registry.Variant:
    """The variant of that name, if it was released.

    Raises:
        registry.UnknownVariantError: no variant has that name.
        PullError: nothing was released.
    """
    variant = registry.find(name)
    if not variant.released:
        raise PullError(f"no weights of {name} were ever published: there is nothing to pull")
    return variant


def pull_file(variant: registry.Variant, revision: str | None, report: Report) -> Pulled:
    """The variant's released file. Arguments, result and errors as for `fetch`."""
    return fetch(variant.repository, variant.file, variant.aliases, revision, report)


def fetch(repository: str, file: str, aliases: Sequence[str], revision: str | None, report: Report) -> Pulled:
    """A file of a model repository: from the hub, or from its cache where that is up to date.

    Where the hub cannot be reached, the cache's file is taken for up to date.

    Args:
        file: path inside the repository.
        aliases: other names the file has had, tried in turn where the repository has no `file`.
        revision: branch, tag or commit; None: the main branch.
        report: called with ("download <name>", fraction 0..1) as bytes come in.

    Raises:
        PullError: it cannot be had, there is no room for it, or its bytes are not those of the hub's digest;
            bad bytes are removed from the cache.
    """
    names = (file, *aliases)
    with hub.hushed():
        try:
            remote = hub.look_up(repository, names, revision)
        except hub.UnreachableError:
            path, digest = hub.cached(repository, names, revision), ""
            if path is None:
                raise
        else:
            path, digest = hub.take(remote, report), remote.digest
    pulled = _verified(repository, path, digest)
    report(f"download {path.name}", 1.0)
    return pulled


def _verified(repository: str, path: Path, digest: str) -> Pulled:
    """The file as the cache has it: <repository's folder>/snapshots/<commit>/<file>.

    There it is a link to ../blobs/<digest>; where the system has no links, `digest` is the hub's answer, or
    empty if it gave none, which leaves the file as it was when it came.
    """
    folder = hub.folder_of(repository)
    digest = path.readlink().name if path.is_symlink() else digest
    sha256, size = sha256_of(path), path.stat().st_size
    if digest and digest != (sha256 if len(digest) == len(sha256) else _git_sha1(path)):
        path.unlink()
        (folder / "blobs" / digest).unlink(missing_ok=True)
        raise PullError(
            f"{path.name} is not the file that the hub announced: its sha256 is {sha256}, the hub's digest "
            f"{digest}; it was removed from the cache, pull again"
        )
    commit, *file = path.relative_to(folder / "snapshots").parts
    return Pulled(path, repository, "/".join(file), commit, sha256, size)


def _git_sha1(path: Path) -> str:
    """The digest by which git, and so the hub, knows a file that is not in its large file storage."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
