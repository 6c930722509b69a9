"""Bounds of a session that its client may reach: how long it lives, and how many texts it follows."""

import json
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.pictures import encoded, moving_square
from tests.place import DEMO
from tests.serving import Serving

TTL_S, LONGEST_TTL_S = 1, 100


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The embedded student with low bounds."""
    log = tmp_path_factory.mktemp("bounds") / "log"
    bounds = {"max_session_texts": 1, "session_ttl_s": TTL_S, "max_session_ttl_s": LONGEST_TTL_S}
    with Serving(DEMO, log, **bounds) as serving:
        yield serving


def opened(serving: Serving, **fields: object) -> str:
    """Return the id of a new session."""
    session: str = serving.client.post("/v1/sessions", json=fields).raise_for_status().json()["session"]
    return session


def add(serving: Serving, session: str, index: int, *texts: str) -> httpx.Response:
    """Send a frame with these texts."""
    return serving.client.post(
        f"/v1/sessions/{session}/frames",
        files={"image": ("frame.png", encoded(moving_square(index), "PNG"), "image/png")},
        data={"request": json.dumps({"frame": index, "prompts": [{"text": text} for text in texts]})},
    )


def problem(answer: httpx.Response) -> str:
    """Return the kind of the error."""
    return str(answer.json()["type"]).removeprefix("/problems/")


def test_an_unused_session_expires(serving: Serving) -> None:
    used, unused = opened(serving, ttl_s=LONGEST_TTL_S), opened(serving)
    time.sleep(TTL_S + 0.5)
    for answer in (serving.client.get(f"/v1/sessions/{unused}"), add(serving, unused, 0)):
        assert (answer.status_code, problem(answer)) == (410, "session_expired")
    assert add(serving, used, 0).status_code == 200


def test_a_longer_life_than_allowed_is_refused(serving: Serving) -> None:
    answer = serving.client.post("/v1/sessions", json={"ttl_s": LONGEST_TTL_S + 1})
    assert (answer.status_code, problem(answer)) == (400, "invalid_argument")
    assert "ttl_s" in answer.json()["detail"] and str(LONGEST_TTL_S) in answer.json()["detail"]


def test_one_text_more_than_allowed_is_refused(serving: Serving) -> None:
    session = opened(serving, ttl_s=LONGEST_TTL_S)
    refused = add(serving, session, 0, "dog", "cat")
    assert (refused.status_code, problem(refused)) == (400, "invalid_argument")
    assert add(serving, session, 0, "dog").status_code == 200
    refused = add(serving, session, 1, "cat")
    assert (refused.status_code, problem(refused)) == (400, "invalid_argument")
    assert "1" in refused.json()["detail"]
    # The session is as it was.
    assert add(serving, session, 1).status_code == 200
