"""Requests made up from the OpenAPI document: every answer is one that the document tells of."""

import base64
from collections.abc import Callable

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.pictures import encoded, street
from tests.serving import Serving

load_all_checks()
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
PICTURE = base64.b64encode(encoded(street(64, 48))).decode()


@pytest.fixture(scope="module")
def document(small: Serving) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{small.url}/openapi.json")


def test_every_answer_is_in_the_document(document: schemathesis.BaseSchema) -> None:
    seen = []
    for found in document.get_all_operations():
        operation = found.ok()
        _try(operation.as_strategy(), lambda case: case)
        seen.append(f"{operation.method.upper()} {operation.path}")
    assert "POST /v1/segment" in seen and "DELETE /v1/images/{id}" in seen


def test_every_prompt_on_a_real_picture_is_answered_as_documented(document: schemathesis.BaseSchema) -> None:
    """Made-up images are none; with a real one, made-up prompts reach the worker."""

    def on_a_picture(case: schemathesis.Case) -> schemathesis.Case:
        if isinstance(case.body, dict) and case.media_type == "application/json":
            case.body["image"] = {"base64": PICTURE}
            case.body.pop("variant", None)
        return case

    _try(document["/v1/segment"]["POST"].as_strategy(), on_a_picture)


def _try(
    cases: SearchStrategy[schemathesis.Case], changed: Callable[[schemathesis.Case], schemathesis.Case]
) -> None:
    @settings(
        max_examples=40,
        deadline=None,
        # What fails today fails tomorrow.
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def answered(case: schemathesis.Case) -> None:
        changed(case).call_and_validate(checks=CHECKS)

    answered()
