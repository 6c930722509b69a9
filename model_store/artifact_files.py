"""Which files an artefact may have, and what they may refer to. Standard library only.

A runtime opens graphs by their paths and follows what they name: all of it is checked before that.
"""

import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from model_store.onnx_file import ExternalData, OnnxFileError, external_data

GRAPH_SUFFIX = ".onnx"
MAX_FILES = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}[A-Za-z0-9_-]|[A-Za-z0-9]")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Names of devices on Windows, whatever comes behind a dot.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


class ArtifactFileError(ValueError):
    """A file or a name that an artefact may not have; the message says which, and what is wrong."""


def check_names(named: Iterable[tuple[str, str]], reserved: str) -> None:
    """Check every (name, sha256) of an artefact's files; `reserved` is the manifest's own name.

    Raises:
        ArtifactFileError: a name is no plain file name on every system, or is there twice, or a digest is
            no sha256.
    """
    seen: set[str] = set()
    for name, digest in named:
        if not _NAME.fullmatch(name) or _DEVICES.fullmatch(name) or name.casefold() == reserved:
            raise ArtifactFileError(
                f"names {name[:80]!a}, which is no plain file name: "
                "letters, digits, '.', '_' and '-' are allowed"
            )
        if not _SHA256.fullmatch(digest):
            raise ArtifactFileError(f"gives {name} the sha256 {digest[:80]!a}; it has 64 hexadecimal digits")
        if name.casefold() in seen:
            raise ArtifactFileError(f"names {name} twice")
        seen.add(name.casefold())
    if len(seen) > MAX_FILES:
        raise ArtifactFileError(f"names {len(seen)} files; an artefact has {MAX_FILES} at most")


def check_is_file(path: Path, *, may_be_linked: bool) -> None:
    """Check that there is a file of its own at `path`. `may_be_linked` allows links of both kinds.

    Raises:
        ArtifactFileError: it is missing, a symlink, a folder or a device, or a hard link to a file elsewhere.
    """
    try:
        status = path.stat() if may_be_linked else path.lstat()
    except OSError:
        raise ArtifactFileError(f"{path} is missing") from None
    if stat.S_ISLNK(status.st_mode):
        raise ArtifactFileError(f"{path} is a symlink; put a copy of the file in its place")
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactFileError(f"{path} is not a file")
    if status.st_nlink > 1 and not may_be_linked:
        raise ArtifactFileError(
            f"{path} is a hard link to a file elsewhere; put a copy of the file in its place"
        )


def check_graph(path: Path, files: Mapping[str, str]) -> None:
    """Check that the ONNX file refers to nothing but the artefact's own `files`, by name: sha256.

    Raises:
        ArtifactFileError: it is no ONNX model, or a tensor's numbers are in a file that the manifest does not
            list, or beyond the end of one.
    """
    sizes: dict[str, int] = {}
    try:
        for data in external_data(path):
            if data.location not in files or data.location.endswith(GRAPH_SUFFIX):
                raise ArtifactFileError(
                    f"{path} keeps numbers in {data.location[:80]!a}, which is no file of the artefact: "
                    "its manifest lists the files that a graph may refer to"
                )
            if data.location not in sizes:
                sizes[data.location] = (path.parent / data.location).stat().st_size
            _check_range(path, data, sizes[data.location])
    except OnnxFileError as error:
        raise ArtifactFileError(f"{path} cannot be read as an ONNX model: {error}") from None
    except OSError as error:
        raise ArtifactFileError(f"{path} cannot be read: {error.strerror}") from None


def _check_range(path: Path, data: ExternalData, size: int) -> None:
    length = size - data.offset if data.length is None else data.length
    if data.offset > size or data.offset + length > size:
        raise ArtifactFileError(
            f"{path} keeps numbers from byte {data.offset} to {data.offset + length} of {data.location}, "
            f"which has {size} bytes"
        )
