"""Tracking sessions over a real channel: a small student's graphs, a real Redis, workers that come and go."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import redis.asyncio
from pycocotools import mask as coco

from model_store import artifact as artifacts
from service.config import WorkerSettings
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.pb.efficientsam3.v1 import tracking_pb2_grpc
from service.rpc import from_rpc_error
from service.worker.engines import Engine, open_engine
from service.worker.server import Worker
from tests.pictures import encoded, moving_clip, moving_square
from tests.redis_server import RedisServer

WIDTH, HEIGHT = 90, 60
CLICK = pb.TrackPrompt(points=[segmentation_pb.Point(x=30, y=30)])
BOX = pb.TrackPrompt(box=segmentation_pb.Box(x0=10, y0=10, x1=50, y1=40))
UNKNOWN = "es-ev-s-mc-s0." + 32 * "0"


class Tracking:
    """Calls one worker; failures come as ServiceErrors."""

    def __init__(self, worker: Worker, channel: grpc.aio.Channel) -> None:
        self.worker = worker
        self.stub = tracking_pb2_grpc.TrackingStub(channel)

    async def open(self, **fields: Any) -> pb.Session:
        return await _told(self.stub.OpenSession(pb.OpenSessionRequest(**fields)))

    async def add(self, session: str, frame: pb.Frame) -> pb.FrameAnswer:
        return await _told(self.stub.AddFrame(pb.AddFrameRequest(session=session, frame=frame)))

    async def get(self, session: str) -> pb.Session:
        return await _told(self.stub.GetSession(pb.SessionRequest(session=session)))

    async def fork(self, session: str) -> pb.Session:
        return await _told(self.stub.ForkSession(pb.SessionRequest(session=session)))

    async def delete(self, session: str) -> None:
        await _told(self.stub.DeleteSession(pb.SessionRequest(session=session)))

    async def frames(self, session: str, indices: Iterable[int]) -> list[bytes]:
        """The answers to `shot`s of these indices, the last twice with the same answer."""
        answers = [await self.add(session, shot(index)) for index in indices]
        return [_result(answer) for answer in answers]


async def _told(call: Any) -> Any:
    try:
        return await asyncio.wait_for(call, 60)
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error


async def refused(work: Coroutine[Any, Any, Any]) -> ServiceError:
    with pytest.raises(ServiceError) as failure:
        await work
    return failure.value


def picture(index: int, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """A bright square that moves to the right over a dark picture."""
    return encoded(moving_square(index, width, height), "PNG")


def shot(index: int, *prompts: pb.TrackPrompt, revision: int = 0, follows: int | None = None) -> pb.Frame:
    """Frame `index`; without prompts two objects are shown on frame 0, and a third on frame 2."""
    usual = {0: (CLICK, BOX), 2: (CLICK,)}
    image = segmentation_pb.Image(data=picture(index))
    chosen = prompts or usual.get(index, ())
    return pb.Frame(frame=index, revision=revision, follows=follows, image=image, prompts=chosen)


def _result(answer: pb.FrameAnswer) -> bytes:
    """What was found, to the bit: all but how long it took."""
    told = pb.FrameAnswer()
    told.CopyFrom(answer)
    told.timings_ms.clear()
    return told.SerializeToString(deterministic=True)


Start = Callable[..., Any]
Run = Callable[[Callable[[Start], Coroutine[Any, Any, None]]], None]


ENGINE: dict[str, Any] = {"precision": "f32", "threads": 1, "engine": "openvino"}
Engines = Callable[[], AbstractContextManager[Engine]]


@pytest.fixture(scope="module")
def engines(artefact: Path) -> Iterator[Engines]:
    """`with engines() as engine`: one that nobody else has. To load one takes longer than most tests."""
    artifact = artifacts.load(artefact)
    graphs = {graph: artifact.path(graph) for graph in artifact.manifest.graphs}
    free: list[Engine] = []

    @contextmanager
    def lent() -> Iterator[Engine]:
        engine = free.pop() if free else open_engine(graphs, WorkerSettings(**ENGINE))
        try:
            yield engine
        finally:
            free.append(engine)

    yield lent
    for engine in free:
        engine.close()


@pytest.fixture
def start(artefact: Path, engines: Engines, tmp_path: Path) -> Start:
    """`async with start(name, **settings) as tracking`: a worker without its warming, drained at the end."""

    @asynccontextmanager
    async def started(name: str = "a", **settings: Any) -> AsyncIterator[Tracking]:
        address = f"unix:{tmp_path}/{name}.sock"
        chosen = WorkerSettings(**{**ENGINE, "listen": address, "drain_s": 1.0, **settings})
        with engines() as engine:
            worker = await Worker.listen(artifacts.load(artefact), engine, chosen)
            async with grpc.aio.insecure_channel(address) as channel:
                try:
                    yield Tracking(worker, channel)
                finally:
                    await worker.drain()

    return started


@pytest.fixture(params=["memory", "redis"])
def kept(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of each kind of store."""
    if request.param == "memory":
        return {}
    server: RedisServer = request.getfixturevalue("redis_server")
    return {"redis_url": server.url}


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 120))


def test_objects_are_followed_through_a_session(start: Start, kept: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with start(**kept) as tracking:
            session = await tracking.open(variant="es-ev-s-mc-s0", ttl_s=100)
            assert (session.next_frame, session.oldest_answer, list(session.objects)) == (0, 0, [])
            answers = [await tracking.add(session.session, shot(index)) for index in range(6)]
            assert [[each.object for each in answer.objects] for answer in answers] == [
                [1, 2], [1, 2], [1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3],
            ]  # fmt: skip
            assert [each.HasField("prompt") for each in answers[2].objects] == [False, False, True]
            for answer in answers:
                assert (answer.image.width, answer.image.height) == (WIDTH, HEIGHT)
                stages = {"queue", "decode", "prompt_decoder", "masks", "store", "total"}
                assert stages <= answer.timings_ms.keys()
                for each in answer.objects:
                    if each.visible:
                        mask = coco.decode({"size": [HEIGHT, WIDTH], "counts": each.mask.rle})
                        assert mask.sum() == each.area > 0
                    else:
                        assert not each.HasField("mask") and not each.area
            stands = await tracking.get(session.session)
            assert (stands.next_frame, stands.oldest_answer) == (6, 2)
            assert list(stands.objects) == [1, 2, 3]
            assert stands.memory_bytes == answers[-1].memory_bytes > answers[0].memory_bytes > 0
            await tracking.delete(session.session)
            for work in (tracking.get(session.session), tracking.add(session.session, shot(6))):
                assert (await refused(work)).kind is Kind.SESSION_NOT_FOUND

    run(scenario())


def test_a_frame_is_answered_again_corrected_or_refused(start: Start, kept: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with start(**kept) as tracking:
            id = (await tracking.open()).session
            before = await tracking.frames(id, range(6))
            assert await tracking.frames(id, [4, 5, 3]) == [before[4], before[5], before[3]]
            # Both copies were made before it was known how long writing takes.
            again = [(await tracking.add(id, shot(4))).timings_ms for _ in range(2)]
            assert again[0] == again[1] and "store" not in again[0]
            for frame, kind, says in (
                (shot(7), Kind.FRAME_GAP, "frame 6 comes next"),
                (shot(6, revision=1), Kind.FRAME_GAP, "frame 6 comes next"),
                (shot(5, revision=2), Kind.FRAME_CONFLICT, "corrected by revision 1"),
                (shot(4, CLICK), Kind.FRAME_CONFLICT, "fork"),
                (shot(1), Kind.FRAME_CONFLICT, "the oldest is that of frame 2"),
            ):
                error = await refused(tracking.add(id, frame))
                assert error.kind is kind and says in error.detail, error.detail
            shown = pb.TrackPrompt(object=2, points=[segmentation_pb.Point(x=70, y=20)])
            corrected = await tracking.add(id, shot(5, shown, revision=1))
            assert _result(corrected) != before[5]
            # The image is known still; what the correction was based on is the state before the frame.
            again = await tracking.add(id, pb.Frame(frame=5, revision=2, prompts=[shown]))
            again.revision = 1
            assert _result(again) == _result(corrected)
            for follows, kind, says in (
                (3, Kind.SESSION_ROLLED_BACK, "frame 5 is of revision 2"),
                (1, Kind.FRAME_CONFLICT, "frame 5 was corrected since, and is of revision 2"),
            ):
                error = await refused(tracking.add(id, shot(6, follows=follows)))
                assert error.kind is kind and says in error.detail, error.detail
            error = await refused(tracking.add(id, shot(5, shown, revision=3, follows=2)))
            assert error.kind is Kind.INVALID_ARGUMENT and "follows is of a new frame" in error.detail
            assert (await tracking.add(id, shot(6, follows=2))).frame == 6

    run(scenario())


@pytest.mark.parametrize("correction", [False, True])
def test_a_session_goes_on_elsewhere_to_the_bit(
    start: Start, redis_server: RedisServer, correction: bool
) -> None:
    """Each frame is answered by another worker, or by one that finds that another went on meanwhile."""
    shown = pb.TrackPrompt(object=1, box=segmentation_pb.Box(x0=20, y0=10, x1=60, y1=50))

    async def watch(id: str, ask: Callable[[int], Tracking]) -> list[bytes]:
        answers = []
        for index in range(8):
            answers.append(_result(await ask(index).add(id, shot(index))))
            if correction and index == 4:
                answers.append(_result(await ask(index + 1).add(id, shot(index, shown, revision=1))))
        return answers

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            one, two, three = [
                await stack.enter_async_context(start(name, redis_url=redis_server.url)) for name in "abc"
            ]
            undisturbed = await watch((await one.open()).session, lambda index: one)
            order = [one, two, two, one, three, one, three, two, one]
            moved = await watch((await one.open()).session, lambda index: order[index])
            assert moved == undisturbed

    run(scenario())


def test_sessions_that_are_not_hot_any_more_go_on_to_the_bit(start: Start, kept: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with start("roomy", **kept) as tracking:
            expected = await tracking.frames((await tracking.open()).session, range(6))
            bytes_of_one = (await tracking.add((await tracking.open()).session, shot(0))).memory_bytes
        # Room for a session, and for two: each is forgotten in turn, and loaded again.
        for name, room in (("one", 1), ("two", 5 * bytes_of_one)):
            async with start(name, hot_session_bytes=room, **kept) as tracking:
                ids = [(await tracking.open()).session for _ in range(4)]
                rounds = [[await tracking.frames(id, [index]) for id in ids] for index in range(6)]
                assert all(answers == [[expected[index]]] * 4 for index, answers in enumerate(rounds))

    run(scenario())


def test_the_last_frames_of_idle_sessions_are_forgotten_before_their_memories(start: Start) -> None:
    shown = pb.TrackPrompt(object=1, box=segmentation_pb.Box(x0=20, y0=10, x1=60, y1=50))

    async def scenario() -> None:
        async with start("roomy") as tracking:
            id = (await tracking.open()).session
            await tracking.add(id, shot(0))
            of_one = tracking.worker.sessions.hot.nbytes
            # All that it takes is at hand.
            again = pb.Frame(frame=0, revision=1, prompts=[CLICK])
            corrected = await tracking.add(id, again)
        async with start("tight", hot_session_bytes=3 * of_one // 2) as tracking:
            first, second = [(await tracking.open()).session for _ in range(2)]
            for id in (first, second):
                await tracking.add(id, shot(0))
            assert (await refused(tracking.add(first, again))).kind is Kind.IMAGE_REQUIRED
            assert _result(await tracking.add(second, again)) == _result(corrected)
            assert len(tracking.worker.sessions.hot) == 2
            assert (await tracking.add(first, shot(0, shown, revision=1))).revision == 1

    run(scenario())


def test_the_instances_of_a_text_are_followed(start: Start, redis_server: RedisServer) -> None:
    text = pb.TrackPrompt(text="square")
    every = pb.TrackOptions(score_threshold=0.0, new_object_threshold=0.0)

    async def watch(id: str, ask: Callable[[int], Tracking]) -> list[pb.FrameAnswer]:
        answers = []
        for index in range(6):
            image = segmentation_pb.Image(data=picture(index))
            prompts = () if index else (CLICK, text)
            answers.append(await ask(index).add(id, pb.Frame(frame=index, image=image, prompts=prompts)))
        return answers

    async def scenario() -> None:
        async with (
            start("a", redis_url=redis_server.url) as one,
            start("b", redis_url=redis_server.url) as two,
        ):
            id = (await one.open(options=every)).session
            answers = await watch(id, lambda index: one)
            first, *others = answers[0].objects
            assert (first.object, first.label, first.prompt) == (1, "", 0)
            assert others and all((each.label, each.prompt) == ("square", 1) for each in others)
            ids = [each.object for each in answers[0].objects]
            for answer in answers[1:]:
                now = [each.object for each in answer.objects]
                # Who was there is there still, under the same id; who is new has a new one.
                assert now[: len(ids)] == ids and now == sorted(now)
                assert not any(each.HasField("prompt") for each in answer.objects)
                ids = now
            moved = await watch((await one.open(options=every)).session, lambda index: (one, two)[index % 2])
            assert [_result(each) for each in moved] == [_result(each) for each in answers]
            error = await refused(two.add(id, shot(6, text)))
            assert "followed already" in error.detail
            gone = pb.TrackPrompt(remove=pb.Removal(text="square"))
            left = await two.add(id, shot(6, gone))
            assert [each.object for each in left.objects] == [1]
            again = await two.add(id, shot(7, text))
            assert all(each.object > max(ids) for each in again.objects[1:])

    run(scenario())


def test_instances_on_trial_are_kept_and_not_answered(start: Start) -> None:
    trial = pb.TrackOptions(score_threshold=0.0, new_object_threshold=0.0, confirm_frames=60)

    async def scenario() -> None:
        async with start() as tracking:
            id = (await tracking.open(options=trial)).session
            assert not (await tracking.add(id, shot(0, pb.TrackPrompt(text="square")))).objects
            session = await tracking.get(id)
            assert not session.objects and session.memory_bytes
            answer = await tracking.add(id, shot(1, CLICK))
            (clicked,) = answer.objects
            # Ids count what was never answered, too.
            assert clicked.object > 1 and not clicked.label
            assert (await tracking.get(id)).objects == [clicked.object]
            longer = pb.TrackOptions(confirm_frames=61)
            error = await refused(tracking.open(options=longer))
            assert error.kind is Kind.INVALID_ARGUMENT and "confirm_frames is 61" in error.detail

    run(scenario())


def test_a_request_that_is_repeated_elsewhere_makes_one_session(
    start: Start, redis_server: RedisServer
) -> None:
    """As a gateway does whose worker died before it answered: the id is the gateway's."""

    async def scenario() -> None:
        async with (
            start("a", redis_url=redis_server.url) as one,
            start("b", redis_url=redis_server.url) as two,
        ):
            chosen = (("x-session", UNKNOWN),)
            for each in (one, two):
                opened = await _told(each.stub.OpenSession(pb.OpenSessionRequest(), metadata=chosen))
                assert (opened.session, opened.next_frame) == (UNKNOWN, 0)
            assert (await two.add(UNKNOWN, shot(0))).frame == 0
            other = (("x-session", UNKNOWN.replace("0", "1")),)
            for each in (two, one):
                asked = pb.SessionRequest(session=UNKNOWN)
                fork = await _told(each.stub.ForkSession(asked, metadata=other))
                assert fork.next_frame == 1
            assert (await one.add(fork.session, shot(1))).frame == 1

    run(scenario())


def test_a_fork_goes_on_by_itself(start: Start, kept: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with start(**kept) as tracking:
            id = (await tracking.open()).session
            await tracking.frames(id, range(4))
            fork = await tracking.fork(id)
            assert fork.session != id and fork.next_frame == 4 and fork.oldest_answer == 0
            gone = pb.TrackPrompt(remove=pb.Removal(object=1))
            changed = await tracking.add(fork.session, shot(4, gone))
            assert [each.object for each in changed.objects] == [2, 3]
            unchanged = await tracking.add(id, shot(4))
            assert [each.object for each in unchanged.objects] == [1, 2, 3]

    run(scenario())


def test_ids_that_the_server_gives_were_never_used(start: Start) -> None:
    async def scenario() -> None:
        async with start() as tracking:
            id = (await tracking.open()).session
            own = pb.TrackPrompt(object=7, points=CLICK.points)
            first = await tracking.add(id, shot(0, CLICK, own))
            assert [each.object for each in first.objects] == [7, 8]
            assert [each.prompt for each in first.objects] == [1, 0]
            removed = pb.TrackPrompt(remove=pb.Removal(object=8))
            second = await tracking.add(id, shot(1, removed, BOX))
            assert [each.object for each in second.objects] == [7, 9]

    run(scenario())


def test_a_session_keeps_to_its_limits(start: Start, kept: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with start(max_session_bytes=3_000, max_sessions=2, max_frames_in_flight=2, **kept) as tracking:
            id = (await tracking.open()).session
            fork = await tracking.fork(id)
            for work in (tracking.open(), tracking.fork(id)):
                error = await refused(work)
                assert error.kind is Kind.QUOTA_EXCEEDED and "2 are allowed" in error.detail
            await tracking.delete(fork.session)
            answers = await asyncio.gather(
                *(tracking.add(id, shot(0)) for _ in range(3)), return_exceptions=True
            )
            (lost,) = [each for each in answers if isinstance(each, ServiceError)]
            assert lost.kind is Kind.OVERLOADED and "2 frames" in lost.detail
            error = await refused(tracking.add(id, shot(1, *([CLICK] * 20))))
            assert error.kind is Kind.QUOTA_EXCEEDED and "the limit is 3,000" in error.detail
            assert (await tracking.add(id, shot(1))).frame == 1

    run(scenario())


def test_frames_follow_each_other_no_faster_than_they_may(start: Start) -> None:
    async def scenario() -> None:
        async with start(max_frame_rate=20.0) as tracking:
            id = (await tracking.open()).session
            before = asyncio.get_running_loop().time()
            await tracking.frames(id, range(4))
            assert asyncio.get_running_loop().time() - before >= 3 / 20

    run(scenario())


def test_a_stopping_worker_answers_the_frames_that_it_has_between_which_it_is_idle(
    start: Start, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with start(max_frame_rate=1.5, drain_s=30.0) as tracking:
            id = (await tracking.open()).session
            adding = [asyncio.ensure_future(tracking.add(id, shot(index))) for index in range(4)]
            asked = pb.TrackVideoRequest(video=moving_clip(tmp_path, 4).read_bytes())
            video = aiter(tracking.stub.TrackVideo(asked))
            assert (await anext(video)).HasField("opened") and (await anext(video)).frame.frame == 0
            assert (await adding[0]).frame == 0
            await tracking.worker.drain()
            assert [(await each).frame for each in adding] == [0, 1, 2, 3]
            assert [answer.frame.frame async for answer in video] == [1, 2, 3]

    run(scenario())


def test_bad_frames_are_refused_and_the_session_stays_usable(start: Start) -> None:
    async def scenario() -> None:
        async with start(max_session_objects=3) as tracking:
            id = (await tracking.open()).session
            good = await tracking.frames(id, range(3))
            gone = pb.TrackPrompt(remove=pb.Removal(object=9))
            same = pb.TrackPrompt(object=1, points=CLICK.points)
            outside = pb.TrackPrompt(object=1, points=[segmentation_pb.Point(x=1000, y=0)])
            larger = pb.Frame(frame=3, image=segmentation_pb.Image(data=picture(3, 120, 60)))
            broken = pb.Frame(frame=3, image=segmentation_pb.Image(data=b"no image"))
            for frame, kind, says in (
                (shot(3, gone), Kind.INVALID_ARGUMENT, "prompts[0].remove.object 9"),
                (shot(3, same, same), Kind.INVALID_ARGUMENT, "prompts[1].object 1 has another prompt"),
                (shot(3, outside), Kind.INVALID_ARGUMENT, "90 x 60 pixels"),
                (shot(3, CLICK), Kind.INVALID_ARGUMENT, "4 objects of the session; the limit is 3"),
                (shot(3, pb.TrackPrompt()), Kind.INVALID_ARGUMENT, "prompts[0] is empty"),
                (shot(3, pb.TrackPrompt(text=" ")), Kind.INVALID_ARGUMENT, "prompts[0].text is blank"),
                (
                    shot(3, pb.TrackPrompt(remove=pb.Removal(text="cat"))),
                    Kind.INVALID_ARGUMENT,
                    "prompts[0].remove.text 'cat'",
                ),
                (larger, Kind.INVALID_ARGUMENT, "the session's frames have 90 x 60"),
                (broken, Kind.UNSUPPORTED_IMAGE, "image"),
                (pb.Frame(frame=3), Kind.INVALID_ARGUMENT, "image is missing"),
            ):
                error = await refused(tracking.add(id, frame))
                assert error.kind is kind and says in error.detail, error.detail
            assert await tracking.frames(id, [2]) == good[2:]
            assert (await tracking.add(id, shot(3))).frame == 3
            for work in (tracking.add(UNKNOWN, shot(0)), tracking.get("no id"), tracking.delete(UNKNOWN)):
                assert (await refused(work)).kind is Kind.SESSION_NOT_FOUND

    run(scenario())


def test_a_stream_answers_in_order_and_goes_on_after_a_bad_frame(start: Start) -> None:
    async def scenario() -> None:
        async with start() as tracking:
            id = (await tracking.open()).session
            expected = await tracking.frames(id, range(4))
            gone = pb.TrackPrompt(remove=pb.Removal(object=9))
            sent = [shot(0), shot(1), shot(2, gone), shot(3), shot(2), shot(3)]

            async def requests() -> AsyncIterator[pb.TrackRequest]:
                yield pb.TrackRequest(open=pb.OpenSessionRequest())
                for frame in sent:
                    yield pb.TrackRequest(frame=frame)

            opened, *answers = [answer async for answer in tracking.stub.Track(requests())]
            assert opened.opened.next_frame == 0 and opened.opened.session != id
            kinds = [answer.error.kind if answer.HasField("error") else "" for answer in answers]
            assert kinds == ["", "", "invalid_argument", "frame_gap", "", ""]
            found = [_result(answer.frame) for answer in answers if answer.HasField("frame")]
            assert found == expected

            async def closed(*requests: pb.TrackRequest) -> ServiceError:
                async def stream() -> AsyncIterator[pb.TrackRequest]:
                    for request in requests:
                        yield request

                async def whole() -> None:
                    async for _ in tracking.stub.Track(stream()):
                        pass

                return await refused(_told(asyncio.ensure_future(whole())))

            opening = pb.TrackRequest(open=pb.OpenSessionRequest(session=UNKNOWN))
            assert (await closed(opening)).kind is Kind.SESSION_NOT_FOUND
            assert "begin with open" in (await closed(pb.TrackRequest(frame=shot(0)))).detail
            twice = pb.TrackRequest(open=pb.OpenSessionRequest())
            assert "open comes once" in (await closed(twice, twice)).detail

    run(scenario())


def test_what_redis_lost_is_written_again_by_the_worker_that_has_it(
    start: Start, redis_server: RedisServer
) -> None:
    async def scenario() -> None:
        async with (
            start("a", redis_url=redis_server.url) as one,
            start("b", redis_url=redis_server.url) as two,
            redis.asyncio.Redis.from_url(redis_server.url) as client,
        ):
            expected = await one.frames((await one.open()).session, range(8))
            id = (await one.open()).session
            found = await one.frames(id, range(3))
            await client.flushall()
            found += await one.frames(id, range(3, 5))
            # It is whole again: another worker goes on with it.
            found += await two.frames(id, range(5, 8))
            assert found == expected

    run(scenario())


def test_a_session_that_was_rolled_back_says_so_and_goes_on(start: Start, redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with (
            start("a", redis_url=redis_server.url) as one,
            start("b", redis_url=redis_server.url) as two,
            redis.asyncio.Redis.from_url(redis_server.url) as client,
        ):
            id = (await one.open()).session
            expected = await one.frames(id, range(3))
            (key,) = [key for key in await client.keys() if id.encode() in key and not key.endswith(b":end")]
            earlier = await client.dump(key)
            expected += await one.frames(id, range(3, 6))
            await client.restore(key, 100_000, earlier, replace=True)
            # Another worker takes it over as the store has it; the one that knows better is asked next.
            assert (await two.frames(id, [2])) == expected[2:3]
            error = await refused(one.add(id, shot(6)))
            assert error.kind is Kind.SESSION_ROLLED_BACK and "frame 3 comes next" in error.detail
            assert await one.frames(id, range(3, 6)) == expected[3:6]

    run(scenario())


def test_a_session_of_another_artefact_is_refused(
    start: Start, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with (
            start("a", redis_url=redis_server.url) as one,
            start("b", redis_url=redis_server.url) as two,
        ):
            id = (await one.open()).session
            await one.frames(id, range(2))
            origin = two.worker.sessions._origin
            monkeypatch.setattr(two.worker.sessions, "_origin", type(origin)(origin.variant, "f" * 64))
            error = await refused(two.add(id, shot(2)))
            assert error.kind is Kind.ARTEFACT_MISMATCH and "ffffffffffff" in error.detail
            assert (await one.add(id, shot(2))).frame == 2

    run(scenario())
