"""What every address of the HTTP API does alike."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from service.errors import ServiceError

_T = TypeVar("_T")


def as_json(answer: BaseModel, status: int = 200) -> Response:
    """The answer as JSON, without fields that have no value."""
    text = answer.model_dump_json(exclude_none=True)
    return Response(text, status, media_type="application/json")


async def while_connected(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """The work's result, or ClientDisconnect: work for a client that has left is cancelled."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
            with suppress(asyncio.CancelledError, ServiceError):
                await task


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
