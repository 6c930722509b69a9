"""What FastAPI cannot read off the code: two request bodies for one address, and problem+json."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.errors import TABLE
from service.gateway.problems import MEDIA_TYPE
from service.gateway.schema import EncodeFields, EncodeIn, Problem, SegmentFields, SegmentIn
from service.gateway.session_schema import FrameFields, FrameIn, OpenIn, VideoIn

_REF = "#/components/schemas/{model}"
_IMAGE = {"base64": "/9j/4AAQSkZJRg=="}


def _parts(file: str, fields: str, required: list[str]) -> dict[str, Any]:
    """Multipart with a file and the model `fields`."""
    return {
        "schema": {
            "type": "object",
            "required": required,
            "additionalProperties": False,
            "properties": {
                file: {"type": "string", "contentMediaType": "application/octet-stream"},
                "request": {"$ref": _REF.format(model=fields)},
            },
        },
        "encoding": {"request": {"contentType": "application/json"}},
    }


def _body(whole: str, fields: str, example: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """The two bodies of one address: JSON of the model `whole`, and multipart with an image and `fields`."""
    as_json = {"schema": {"$ref": _REF.format(model=whole)}, "example": example}
    parts = _parts("image", fields, required)
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": as_json, "multipart/form-data": parts},
        }
    }


SEGMENT_BODY = _body(
    "SegmentIn",
    "SegmentFields",
    {"image": _IMAGE, "prompts": [{"text": "truck"}]},
    ["image", "request"],
)
ENCODE_BODY = _body("EncodeIn", "EncodeFields", {"image": _IMAGE}, ["image"])
FRAME_BODY = _body(
    "FrameIn",
    "FrameFields",
    {"frame": 0, "image": _IMAGE, "prompts": [{"points": [{"x": 520, "y": 375}]}]},
    ["image", "request"],
)
VIDEO_BODY = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": _parts("video", "VideoIn", ["video", "request"])},
    }
}
OPEN_BODY = {
    "requestBody": {"content": {"application/json": {"schema": {"$ref": _REF.format(model="OpenIn")}}}}
}


def reference(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a model that another address answers with."""
    return {"$ref": _REF.format(model=model.__name__)}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an address that may refuse with these HTTP statuses."""
    content = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}}
    return {
        status: {
            "description": ", ".join(kind for kind, row in TABLE.items() if row.http_status == status),
            "content": content,
        }
        for status in statuses
    }


def install(app: FastAPI, *, keyed: bool) -> None:
    """Make `/openapi.json` whole: add the schemas that bodies and problems refer to, and what keys are."""

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title, version=app.version, summary=app.summary, routes=app.routes
            )
            models = (
                SegmentIn,
                SegmentFields,
                EncodeIn,
                EncodeFields,
                OpenIn,
                FrameIn,
                FrameFields,
                VideoIn,
                Problem,
            )
            inputs = [(model, "validation") for model in models]
            _, definitions = models_json_schema(inputs, ref_template=_REF)  # type: ignore[arg-type]
            document["components"]["schemas"] |= definitions["$defs"]
            for unused in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(unused, None)
            for operations in document["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
            if keyed:
                _add_keys(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = whole  # type: ignore[method-assign]


def _add_keys(document: dict[str, Any]) -> None:
    """Say that the API needs a key, and what is answered without a good one."""
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    refusals = {str(status): told for status, told in problems(401, 403, 429).items()}
    for path, operations in document["paths"].items():
        for operation in operations.values() if path.startswith("/v1/") else ():
            operation["security"] = [{"key": []}]
            operation["responses"] = refusals | operation["responses"]
