"""The command `efficientsam3 variants pull`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store import artifact, registry
from model_store.layouts import STAGE_3_LEFT_OUT
from tests.hub_server import COMMIT, Hub, HubFile
from tests.hub_shell import Shell, hub_shell
from tests.released import write_checkpoint

VARIANT = registry.find("es-ev-m-mc-s0")
FILLER = registry.find(VARIANT.fill_from)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with hub_shell(Hub(), tmp_path) as shell:
        yield shell


@pytest.fixture
def hub(shell: Shell) -> Hub:
    """A hub that holds nothing yet."""
    return shell.hub


def test_the_command_says_in_one_line_why_nothing_was_fetched(shell: Shell, hub: Hub) -> None:
    name = VARIANT.name
    shell.refuses(name, "http://127.0.0.1:1 cannot be reached", HF_ENDPOINT="http://127.0.0.1:1")
    shell.refuses(name, "variants import NAME --checkpoint FILE", HF_ENDPOINT="http://127.0.0.1:1")
    shell.refuses(name, "offline mode is on (HF_HUB_OFFLINE)", HF_HUB_OFFLINE="1")
    shell.refuses(name, f"no access to {hub.url}/{VARIANT.repository} (401)")
    hub.files[VARIANT.repository, "README.md"] = HubFile(b"")
    shell.refuses(name, f"has no file {VARIANT.file}")


def test_the_command_asks_for_nothing_that_could_not_be_imported(shell: Shell, hub: Hub) -> None:
    shell.refuses("es-ev-s-mc-s0", "no weights of es-ev-s-mc-s0 were ever published")
    shell.refuses("es-ev-xs", "there is no variant 'es-ev-xs'")
    # What the import system does when torch is not installed.
    code = "import sys; sys.modules['torch'] = None; from service.cli import main; main(sys.argv[1:])"
    done = shell.run("-c", code, "variants", "pull", VARIANT.name)
    assert "needs torch: pip install 'efficientsam3-service[import]'" in done.stderr
    assert hub.asked == []


def test_a_fetched_file_that_is_no_checkpoint_stays_in_the_hubs_cache_alone(shell: Shell, hub: Hub) -> None:
    for row in (VARIANT, FILLER):
        hub.files[row.repository, row.file] = HubFile(b"no checkpoint")
    done = shell.pull(VARIANT.name)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"efficientsam3: {Path(VARIANT.file).name} ")
    assert not (shell.home.parent / "store").exists()
    (kept,) = shell.home.rglob(Path(VARIANT.file).name)
    assert kept.read_bytes() == b"no checkpoint"


def test_the_file_that_fills_the_variants_is_fetched_too(shell: Shell, hub: Hub) -> None:
    hub.files[VARIANT.repository, VARIANT.file] = HubFile(b"no checkpoint")
    done = shell.pull(VARIANT.name)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"has no file {FILLER.file}" in done.stderr.strip().splitlines()[-1]


@pytest.mark.slow
def test_a_variant_is_pulled_and_its_origin_recorded(
    shell: Shell, hub: Hub, reference: Path, tmp_path: Path
) -> None:
    checkpoint = write_checkpoint(reference, VARIANT.name, tmp_path / "checkpoint.pt")
    hub.files[VARIANT.repository, VARIANT.file] = HubFile(checkpoint.read_bytes())
    rest = write_checkpoint(reference, FILLER.name, tmp_path / "rest.pt", only=STAGE_3_LEFT_OUT)
    hub.files[FILLER.repository, FILLER.file] = HubFile(rest.read_bytes())
    done = shell.pull(VARIANT.name)
    assert done.returncode == 0, done.stderr
    made = artifact.load(tmp_path / "store" / VARIANT.name)
    filled = made.manifest.source["filled_from"]
    assert filled["path"] == FILLER.file and filled["revision"] == COMMIT
    assert filled["sha256"] == hub.files[FILLER.repository, FILLER.file].digest
    assert set(made.manifest.audit["filled"]) == {"geometry encoder", "interactive neck", "prompt decoder"}
    assert {key: value for key, value in made.manifest.source.items() if key != "filled_from"} == {
        "file": Path(VARIANT.file).name,
        "sha256": hub.files[VARIANT.repository, VARIANT.file].digest,
        "bytes": checkpoint.stat().st_size,
        "repository": VARIANT.repository,
        "revision": COMMIT,
        "path": VARIANT.file,
    }
