"""`efficientsam3 keys`: what it writes is what a gateway reads, and a key is shown once."""

import hashlib
from pathlib import Path

import pytest

from service.gateway.keys import Keys, read
from tests.command import run_command


def test_a_key_is_shown_once_and_opens_what_it_may(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    limits = ("--requests-per-s", "2.5", "--burst", "10", "--concurrent", "4", "--sessions", "3")
    made = run_command(
        "keys", "new", "alice", "--file", str(file), *limits, "--variant", "a", "--variant", "b"
    )
    first, second = (
        made.stdout.strip(),
        run_command("keys", "new", "b.o-b", "--file", str(file)).stdout.strip(),
    )
    assert file.stat().st_mode & 0o777 == 0o600
    keys = Keys(file)
    alice, bob = keys.find(first), keys.find(second)
    assert alice and bob and first != second
    assert (alice.name, alice.requests_per_s, alice.burst) == ("alice", 2.5, 10)
    assert (alice.concurrent, alice.sessions, alice.variants) == (4, 3, ["a", "b"])
    assert (bob.name, bob.requests_per_s, bob.concurrent, bob.variants) == ("b.o-b", None, None, None)
    assert keys.find(first + "x") is None and keys.find(alice.sha256) is None
    kept = file.read_text() + made.stderr + repr(alice)
    assert first not in kept and alice.sha256 == hashlib.sha256(first.encode()).hexdigest()
    assert alice.sha256 not in repr(alice)
    listed = run_command("keys", "list", env={"EFFICIENTSAM3_KEYS_FILE": str(file)})
    assert [line.split() for line in listed.stdout.splitlines()[1:]] == [
        ["alice", "2.5", "10", "4", "3", "a", "b"],
        ["b.o-b", "-", "-", "-", "-", "all"],
    ]


@pytest.mark.parametrize(
    ("text", "arguments", "says"),
    [
        ("", ("alice", "--concurrent", "0"), "keys.alice.concurrent: Input should be greater than"),
        ("", ("alice", "--burst", "2"), "keys.alice: burst needs requests_per_s"),
        ("", ("a b",), "keys.a b"),
        (f"[keys.alice]\nsha256 = '{64 * '0'}'", ("alice",), "has keys.alice already"),
        ("[keys.alice]", ("bob",), "keys.alice.sha256: Field required"),
        ("keys", ("bob",), "is no TOML"),
    ],
)
def test_what_cannot_be_is_refused_and_the_file_stays(
    tmp_path: Path, text: str, arguments: tuple[str, ...], says: str
) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text)
    refused = run_command("keys", "new", *arguments, "--file", str(file), fails=True)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert says in refused.stderr and str(file) in refused.stderr
    assert file.read_text() == text


def test_an_entry_is_added_behind_whatever_ends_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(f"[keys.alice]\nsha256 = '{64 * '0'}'  # no end of line")
    run_command("keys", "new", "bob", "--file", str(file))
    assert list(read(file)) == ["alice", "bob"]


def test_a_gateway_with_a_broken_file_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    environment = {"EFFICIENTSAM3_KEYS_FILE": str(file)}
    refused = run_command("gateway", "--http-port", "0", "--grpc-port", "0", env=environment, fails=True)
    assert refused.returncode == 2
    assert refused.stderr == f"efficientsam3: keys_file {file}: No such file or directory\n"
    listed = run_command("keys", "list", env=environment, fails=True)
    assert listed.stderr == refused.stderr
