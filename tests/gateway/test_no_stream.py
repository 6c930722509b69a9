"""A WebSocket at an address that serves none is refused as any other request is."""

import json

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.gateway.conftest import House


@pytest.mark.parametrize(
    "path", ["/v1/segment", "/v1/sessions/a/b/stream", "/", "/page/app.js", "/static-offline-docs/x"]
)
def test_a_websocket_elsewhere_is_refused_with_a_problem(served: House, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(f"ws{served.gateway.url[4:]}{path}", proxy=None):
        pass
    answer = refused.value.response
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = json.loads(answer.body or b"")
    assert problem["type"] == "/problems/not_found" and path in problem["detail"]
