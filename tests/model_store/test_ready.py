"""Taking a ready artefact from a web server, as an image's init step does."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from model_store import artifact
from model_store.artifact import MANIFEST, PACKAGED, StoreError
from model_store.ready import MAX_MANIFEST_BYTES, take

DIGEST = artifact.sha256_of(PACKAGED / "demo" / MANIFEST)


class Published:
    """A folder with a copy of the embedded artefact, behind a web server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "demo"
        shutil.copytree(PACKAGED / "demo", self.folder)
        self.asked: list[str] = []

        class Handler(SimpleHTTPRequestHandler):
            def log_message(handler, format: str, *arguments: object) -> None:  # noqa: N805
                self.asked.append(handler.path.rpartition("/")[2])

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        threading.Thread(target=self.server.serve_forever).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}/demo"


@pytest.fixture
def published(tmp_path: Path) -> Iterator[Published]:
    published = Published(tmp_path / "published")
    yield published
    published.server.shutdown()
    published.server.server_close()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def _nothing(stage: str, fraction: float) -> None:
    pass


def test_an_artefact_is_taken_once_and_is_the_published_one(published: Published, store: Path) -> None:
    told: list[tuple[str, float]] = []
    place = take("demo", published.address, DIGEST, store, lambda *what: told.append(what))
    assert place == store / "demo" and artifact.load(place).digest == DIGEST
    assert sorted(file.name for file in place.iterdir()) == sorted(set(published.asked))
    assert {file for file, fraction in told if fraction == 1} == set(published.asked)
    published.asked.clear()
    assert take("demo", published.address + "/", DIGEST, store, _nothing) == place
    assert published.asked == []


def test_what_was_damaged_on_the_disk_is_taken_again(published: Published, store: Path) -> None:
    place = take("demo", published.address, DIGEST, store, _nothing)
    (place / "tokenizer.json").write_text("{}")
    assert artifact.load(take("demo", published.address, DIGEST, store, _nothing)).digest == DIGEST


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda folder: (folder / MANIFEST).write_text("{}"), f"demo/{MANIFEST} is not the file"),
        (lambda folder: (folder / MANIFEST).write_bytes(bytes(MAX_MANIFEST_BYTES + 1)), "16777216 bytes"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "demo/tokenizer.json is not the file"),
        (lambda folder: (folder / "text_encoder.onnx").unlink(), "text_encoder.onnx .* HTTP status 404"),
    ],
)
def test_an_artefact_that_is_not_the_announced_one_stays_out(
    published: Published, store: Path, change: Callable[[Path], object], complaint: str
) -> None:
    change(published.folder)
    with pytest.raises(StoreError, match=complaint):
        take("demo", published.address, DIGEST, store, _nothing)
    assert list(store.iterdir()) == []


def test_an_artefact_of_another_variant_stays_out(published: Published, store: Path) -> None:
    with pytest.raises(StoreError, match="is one of demo, not of es-ev-m-mc-s0"):
        take("es-ev-m-mc-s0", published.address, DIGEST, store, _nothing)
    manifest = json.loads((published.folder / MANIFEST).read_text())
    manifest["files"]["../escaped"] = "0" * 64
    (published.folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="no plain file name"):
        take("demo", published.address, artifact.sha256_of(published.folder / MANIFEST), store, _nothing)
    assert list(store.iterdir()) == []


def test_the_command_takes_it_without_torch_and_says_what_is_wrong(published: Published, store: Path) -> None:
    def pull(*options: str) -> subprocess.CompletedProcess[str]:
        code = "import sys; sys.modules['torch'] = None; from service.cli import main; main(sys.argv[1:])"
        command = [sys.executable, "-c", code, "variants", "pull", "demo", "--store", str(store), *options]
        return subprocess.run(command, capture_output=True, text=True)

    taken = pull("--from", published.address, "--digest", DIGEST)
    assert taken.returncode == 0 and f"demo is in {store / 'demo'}" in taken.stdout, taken.stderr
    assert artifact.load(store / "demo").digest == DIGEST

    for options, code, complaint in (
        (("--from", published.address), 2, "--from and --digest go together"),
        (("--from", published.address, "--digest", DIGEST, "--revision", "main"), 2, "without --revision"),
        (("--from", published.address, "--digest", "12"), 1, "digest '12' is no sha256"),
        (("--from", "ftp://models", "--digest", DIGEST), 1, "'ftp://models' is no address of a folder"),
        (
            ("--from", "http://127.0.0.1:1", "--digest", "0" * 64),
            1,
            f"http://127.0.0.1:1/{MANIFEST} cannot be had",
        ),
    ):
        done = pull(*options)
        assert done.returncode == code and complaint in done.stderr.replace("\n", ""), done.stderr
        assert "Traceback" not in done.stderr
