"""What a session takes in the store, as docs/sessions.md says: by the sizes of what is kept, and measured."""

import asyncio

import numpy as np
import pytest

from model_store import artifact, registry
from model_store.artifact import Memory
from model_store.networks.sizes import sizes_of
from service.config import WorkerSettings
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.sessions.redis_sessions import RedisSessions
from service.worker.hot_sessions import Session
from service.worker.scenes import Scene, Seen
from service.worker.sessions import Sessions
from service.worker.tracker.bank import Kept, Track, half
from service.worker.tracker.state import Origin, State
from tests.redis_server import RedisServer

FRAMES = 24
# Beside its numbers a part has its checksum and the shape of its tensor; Redis rounds each value up to one of
# its sizes.
HEADER_BYTES, ROUNDED_UP = 32, 1.25


def full_size(kind: str) -> Memory:
    """Of every student but the embedded one."""
    sizes = sizes_of(registry.find("es-ev-m-perceiver"))
    of = sizes.memory
    tokens = {"perceiver": of.latents + of.windows**2, "dense": sizes.grid**2}[kind]
    return Memory(kind, tokens, of.width, sizes.width, of.frames, of.pointers, sizes.grid << of.mask_steps)


def demo() -> Memory:
    memory = artifact.read(artifact.PACKAGED / registry.EMBEDDED).memory
    assert memory is not None
    return memory


@pytest.mark.parametrize(
    ("memory", "frame_bytes", "object_bytes"),
    [
        pytest.param(full_size("perceiver"), 41_472, 336_384, id="perceiver"),
        pytest.param(full_size("dense"), 664_064, 5_317_120, id="dense"),
        pytest.param(demo(), 11_328, 92_352, id="demo"),
    ],
)
def test_an_object_takes_what_its_sizes_say(
    redis_server: RedisServer, memory: Memory, frame_bytes: int, object_bytes: int
) -> None:
    """One object that was shown on the first frame, when everything is kept that ever will be."""
    assert 2 * (memory.tokens * memory.width + memory.pointer_width) == frame_bytes
    memories = 1 + memory.frames  # the first frame's, six others', and one that the state before has
    pointers = 1 + memory.pointers
    assert 2 * (memories * memory.tokens * memory.width + pointers * memory.pointer_width) == object_bytes
    asyncio.run(_follow(redis_server.url, memory))
    with redis_server.client() as client:
        (key,) = client.scan_iter("*:")  # the owner, which it ends with, is nobody
        parts = [name for name in client.hkeys(key) if name.startswith((b"memory:", b"pointer:"))]
        assert len(parts) == memories + pointers
        stored = sum(client.hstrlen(key, name) for name in parts)
        assert 0 <= stored - object_bytes <= HEADER_BYTES * len(parts)
        used = client.memory_usage(key, samples=0)
    assert stored <= used <= ROUNDED_UP * stored + 10_000
    print(f"{stored:,} bytes, {used:,} as Redis keeps them")


async def _follow(url: str, memory: Memory) -> None:
    """Keep numbers of the memory's sizes in a session, frame by frame."""
    sessions = Sessions(RedisSessions(url), Origin("demo", "digest"), WorkerSettings(hot_session_bytes=0))
    session = await sessions.open("", "", 60, None, pb.TrackOptions(), 1)
    tokens, pointer = half(np.ones((memory.tokens, memory.width))), half(np.ones(memory.pointer_width))
    for index in range(FRAMES):

        async def compute(session: Session, state: State) -> tuple[State, pb.FrameAnswer, Seen]:
            track = state.tracks[0] if state.tracks else Track(1)
            kept = Kept(session.next_frame, tokens, pointer)
            after = track.remember(kept, not state.tracks, memory)
            answer = pb.FrameAnswer(frame=session.next_frame)
            return State(state.origin, tracks=(after,)), answer, Seen(Scene("", 1, 1, None), {})

        await sessions.add("", session.id, pb.Frame(frame=index), compute)
    await sessions.close()
