"""The error table is whole and says what the public API says."""

import re
from pathlib import Path

import grpc

from service.errors import TABLE, Kind

API = Path(__file__).parent.parent / "docs" / "api.md"


def test_every_kind_has_a_row() -> None:
    assert set(TABLE) == set(Kind)


def test_the_public_table_names_every_kind_with_its_status() -> None:
    documented: dict[str, set[int]] = {}
    rows = re.findall(r"^\| (`[a-z_`/, ()A-Za-z]+?) \| ([\d /]+) \|", API.read_text(), flags=re.M)
    for names, statuses in rows:
        for kind in re.findall(r"`([a-z_]+)`", names):
            documented[kind] = {int(status) for status in statuses.split("/")}
    assert documented.keys() == {str(kind) for kind in Kind}
    for kind, row in TABLE.items():
        assert row.http_status in documented[str(kind)], kind


def test_only_refusals_that_may_pass_later_are_retryable() -> None:
    retryable = {kind for kind, row in TABLE.items() if row.retryable}
    assert {TABLE[kind].http_status for kind in retryable} == {429, 503}
    assert {TABLE[kind].grpc_code for kind in retryable} == {
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
    }
