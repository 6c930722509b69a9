"""gRPC's events reach the service's event loop at once, however many there are."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from service import event_loop

CALLS = 1000
# Without help gRPC hands over one event in an iteration: more than one iteration for each call.
MOST_ITERATIONS = 300

SERVER = """
import asyncio, sys, grpc.aio
async def echo(message, context):
    return message
async def main():
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", {"Echo": method}),))
    server.add_insecure_port(sys.argv[1])
    await server.start()
    await server.wait_for_termination()
asyncio.run(main())
"""


@asynccontextmanager
async def serving(address: str) -> AsyncIterator[None]:
    """A server in a process of its own."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, address)
    try:
        yield
    finally:
        process.kill()
        await process.wait()


def test_a_busy_loop_takes_all_events_that_wait(tmp_path: Path) -> None:
    iterations = 0

    def busy() -> None:
        nonlocal iterations
        iterations += 1
        time.sleep(0.005)
        asyncio.get_running_loop().call_soon(busy)

    async def scenario() -> list[bytes]:
        address = f"unix:{tmp_path}/socket"
        async with serving(address), grpc.aio.insecure_channel(address) as channel:
            echo = channel.unary_unary("/test/Echo")
            await echo(b"first", wait_for_ready=True, timeout=30)
            asyncio.get_running_loop().call_soon(busy)
            return list(await asyncio.gather(*(echo(b"again") for _ in range(CALLS))))

    assert event_loop.run(scenario()) == [b"again"] * CALLS
    assert iterations < MOST_ITERATIONS
