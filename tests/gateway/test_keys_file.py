"""The file of keys: read again when it changes, and what cannot be in it."""

from pathlib import Path

import pytest

from service.config import ConfigurationError
from tests.gateway.conftest import House
from tests.gateway.keyed import opened, segment
from tests.keys import KeysFile


def test_the_file_is_read_again_when_it_changes(
    house: House, keys: KeysFile, caplog: pytest.LogCaptureFixture
) -> None:
    opened(house, keys)
    keys.write(alice={"variants": ["other"]}, carol={})
    assert [segment(house, name).status_code for name in ("alice", "bob", "carol")] == [403, 401, 200]
    for broken, says in (
        ("[keys.alice]\nsha256 = 'secret-of-alice'", "keys.alice.sha256: it is not 64 hexadecimal digits"),
        ("secret-of-alice", "is no TOML"),
        ("\xff", "is no text in UTF-8"),
    ):
        caplog.clear()
        keys.replace(broken.encode("latin-1"))
        assert [segment(house, name).status_code for name in ("alice", "bob", "carol")] == [403, 401, 200]
        (told,) = (record.message for record in caplog.records if record.name == "service.gateway.keys")
        assert str(keys.path) in told and says in told and "stay as they were" in told
        assert "secret-of" not in told
    keys.path.unlink()
    assert segment(house, "carol").status_code == 200
    # A file without keys lets nobody in.
    keys.write()
    assert segment(house, "carol").status_code == 401
    keys.write(bob={})
    assert segment(house, "bob").status_code == 200


HASH = 64 * "0"
BROKEN = {
    "no such file": (None, "No such file or directory"),
    "no TOML": ("keys = ", "is no TOML"),
    "a key in the place of its hash": (
        "[keys.alice]\nsha256 = 'secret'",
        "keys.alice.sha256: it is not 64 hexadecimal digits in lower case",
    ),
    "a name that cannot be": (f"[keys.'a b']\nsha256 = '{HASH}'", "keys.a b"),
    "no hash": ("[keys.alice]\nburst = 1", "keys.alice.sha256: Field required"),
    "a limit of nothing": (
        f"[keys.alice]\nsha256 = '{HASH}'\nconcurrent = 0",
        "keys.alice.concurrent: Input should be greater than or equal to 1",
    ),
    "a limit that there is not": (
        f"[keys.alice]\nsha256 = '{HASH}'\nsession = 1",
        "keys.alice.session: Extra inputs are not permitted",
    ),
    "a rate without end": (
        f"[keys.alice]\nsha256 = '{HASH}'\nrequests_per_s = inf",
        "keys.alice.requests_per_s: Input should be less than or equal to 1000000",
    ),
    "a burst of no rate": (
        f"[keys.alice]\nsha256 = '{HASH}'\nburst = 2",
        "keys.alice: burst needs requests_per_s",
    ),
    "a key of two names": (
        f"[keys.alice]\nsha256 = '{HASH}'\n[keys.bob]\nsha256 = '{HASH}'",
        "keys.bob: it is the key of keys.alice",
    ),
    "another table": ("[users]", "users: Extra inputs are not permitted"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_at_the_start_is_an_error_that_names_it(
    house: House, tmp_path: Path, case: str
) -> None:
    path, (text, says) = tmp_path / "keys.toml", BROKEN[case]
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError) as failure:
        house.open(keys_file=path)
    assert f"keys_file {path}" in str(failure.value) and says in str(failure.value)
    assert "secret" not in str(failure.value)
