"""One file of the Hugging Face hub, brought into the hub's cache.

huggingface_hub keeps the cache and reads HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE. After a download
that was cut off it begins anew; `take` goes on with the bytes that are there.
"""

import errno
import logging as levels
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from httpx2 import HTTPError, InvalidURL
from huggingface_hub import constants, hf_hub_download, hf_hub_url, logging, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import get_hf_file_metadata, http_get, repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers, parse_ratelimit_headers, tqdm

from model_store.artifact import StoreError

Report = Callable[[str, float], None]

# sha256 of a large file, git's sha1 of a small one. The cache keeps a file under it.
_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BY_HAND = "a file fetched elsewhere comes in with: efficientsam3 variants import NAME --checkpoint FILE"
_GOES_ON = "the next pull goes on where this one stopped"


class PullError(StoreError):
    """The file was not fetched; the message says why, and what can be done."""


class UnreachableError(PullError):
    """The hub was not asked, or did not answer."""


@dataclass(frozen=True, slots=True)
class Remote:
    """What the hub says of a file."""

    repository: str
    # Path inside the repository.
    file: str
    # What was asked for; None: the main branch.
    revision: str | None
    # Hash of the commit that the revision names.
    commit: str
    # sha256, or git's sha1 of a blob, in hexadecimal digits.
    digest: str
    bytes: int


def folder_of(repository: str) -> Path:
    """The repository's folder in the hub's cache."""
    return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repository, repo_type="model"))


def look_up(repository: str, names: Sequence[str], revision: str | None) -> Remote:
    """What the hub says of the first of the names that the repository has.

    Raises:
        UnreachableError: no network, offline mode, or the hub is in trouble.
        PullError: there is no such repository, revision or file, or no access to it.
    """
    for name in names:
        try:
            facts = get_hf_file_metadata(hf_hub_url(repository, name, revision=revision))
        except RemoteEntryNotFoundError:
            continue
        except HfHubHTTPError as error:
            raise _refused(error, repository, revision) from error
        except OfflineModeIsEnabled as error:
            raise UnreachableError(
                f"offline mode is on (HF_HUB_OFFLINE) and {names[0]} is not in the hub's cache; {_BY_HAND}"
            ) from error
        except (HTTPError, InvalidURL) as error:
            reason = f"{constants.ENDPOINT} cannot be reached ({_reason(error)})"
            raise UnreachableError(f"{reason}; without a network, {_BY_HAND}") from error
        commit, digest, size = facts.commit_hash or "", facts.etag or "", facts.size
        if not _COMMIT.fullmatch(commit) or not _DIGEST.fullmatch(digest) or size is None:
            lacks = f"{constants.ENDPOINT} (HF_ENDPOINT) does not tell the commit, digest and size of {name}"
            raise PullError(f"{lacks}, as the hub does; {_BY_HAND}")
        return Remote(repository, name, revision, commit, digest, size)
    raise PullError(f"{repository} has no file {' or '.join(names)} at revision {revision or 'main'}")


def cached(repository: str, names: Sequence[str], revision: str | None) -> Path | None:
    """Where the hub's cache has the first of the names, as of the last time that the hub was asked."""
    found = (try_to_load_from_cache(repository, name, revision=revision) for name in names)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def take(remote: Remote, report: Report) -> Path:
    """The file in the hub's cache, brought there if it is not. Its bytes are not looked at.

    Raises:
        PullError: the transfer broke off, or the disk is full. What came is kept for the next time.
    """
    bar = _bar(f"download {Path(remote.file).name}", report)
    try:
        if cached(remote.repository, [remote.file], remote.commit) is None:
            _transfer(remote, bar)
        # Finds the bytes there, and enters them under revision and name.
        return Path(hf_hub_download(remote.repository, remote.file, revision=remote.revision, tqdm_class=bar))
    except (HTTPError, LocalEntryNotFoundError) as error:
        reason = f"the transfer of {remote.file} broke off ({_reason(error)})"
        raise PullError(f"{reason}; {_GOES_ON}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(remote, remote.bytes) from error
        if error.errno is None:
            # huggingface_hub counted the bytes.
            _partial(remote).unlink(missing_ok=True)
            raise PullError(f"{remote.file} did not come with the {remote.bytes} bytes announced") from error
        raise


def _partial(remote: Remote) -> Path:
    """Where bytes that came are kept until all are there. `hf cache prune` knows such files by their name."""
    return folder_of(remote.repository) / "blobs" / f"{remote.digest}.incomplete"


def _transfer(remote: Remote, bar: Any) -> None:
    """Bring the bytes to where the cache keeps them, going on with what an earlier transfer left there."""
    folder, partial = folder_of(remote.repository), _partial(remote)
    blob = partial.with_suffix("")
    lock = folder.parent / ".locks" / folder.name / f"{remote.digest}.lock"
    blob.parent.mkdir(parents=True, exist_ok=True)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.exists():
            return
        with partial.open("ab") as file:
            if file.tell() > remote.bytes:
                file.seek(0)
                file.truncate()
            have = file.tell()
            if shutil.disk_usage(blob.parent).free < remote.bytes - have:
                raise _no_room(remote, remote.bytes - have)
            http_get(
                hf_hub_url(remote.repository, remote.file, revision=remote.commit),
                file,
                resume_size=have,
                headers=build_hf_headers(),
                expected_size=remote.bytes,
                tqdm_class=bar,
            )
        partial.replace(blob)


def _bar(stage: str, report: Report) -> Any:
    """A class that huggingface_hub takes for its progress bar. It draws nothing and tells `report`."""

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **(options | {"disable": True}))  # type: ignore[no-untyped-call]
            self.done = options.get("initial") or 0
            self.update(0)

        def update(self, n: float | None = 1) -> None:
            self.done += n or 0
            report(stage, min(1.0, self.done / self.total) if self.total else 0.0)

    return Bar


@contextmanager
def hushed() -> Iterator[None]:
    """huggingface_hub's warnings are not printed: what matters of them is in our errors."""
    before = logging.get_verbosity()
    logging.set_verbosity(levels.ERROR if before == levels.WARNING else before)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _refused(error: HfHubHTTPError, repository: str, revision: str | None) -> PullError:
    status = error.response.status_code
    where = f"{constants.ENDPOINT}/{repository}"
    log_in = "log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return PullError(f"{repository} has no revision {revision}")
    if isinstance(error, GatedRepoError):
        return PullError(f"no access to {where}: it is gated; ask for access on that page, then {log_in}")
    if status in (401, 403):
        # The hub answers the same for what does not exist and what may not be seen.
        return PullError(f"no access to {where} ({status}): private, or not there; if private, {log_in}")
    if status == 404:
        return PullError(f"there is no repository {where}")
    if status == 429:
        limit = parse_ratelimit_headers(error.response.headers)
        wait = f"in {limit.reset_in_seconds} seconds" if limit else "later"
        return UnreachableError(f"{constants.ENDPOINT} had too many requests from here (429); try {wait}")
    return UnreachableError(f"{where} cannot be read now ({status}); try later, or {_BY_HAND}")


def _no_room(remote: Remote, needed: int) -> PullError:
    free = shutil.disk_usage(Path(constants.HF_HUB_CACHE)).free
    return PullError(
        f"no room in {constants.HF_HUB_CACHE} (HF_HOME) for {remote.file}: it needs {needed / 1e6:.1f} MB, "
        f"{free / 1e6:.1f} MB are free; {_GOES_ON}"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError):
        # Its own words hold the address, which may be signed.
        return f"HTTP status {error.response.status_code}"
    return str(error).strip().partition("\n")[0] or type(error).__name__
