"""A worker that stands still while another goes on with its session, and wakes up with a frame to answer."""

import grpc
import pytest

from service.client import Client
from service.errors import Kind
from service.gateway.session_translate import frame_answer
from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.rpc import from_rpc_error
from tests.place import Place
from tests.tracked_clip import followed

# Of the session: the frame that the frozen worker has, and the one after which it is woken.
FROZEN, WOKEN = 6, 9


def frame(place: Place, *prompts: pb.TrackPrompt) -> pb.Frame:
    image = segmentation_pb.Image(data=place.frames[FROZEN][0])
    # As the client asks: the same request, to the bit.
    return pb.Frame(frame=FROZEN, image=image, prompts=prompts, follows=0)


def stored(place: Place, session: str) -> tuple[int, dict[bytes, bytes]]:
    """The epoch of the newest claim, and what is kept of the session whoever has it."""
    with place.redis.client() as client:
        (key,) = client.scan_iter(f"*{session}*[^d]")
        fields = client.hgetall(key)
    epoch = int(fields.pop(b".epoch"))
    del fields[b".nonce"]
    return epoch, fields


def test_what_a_worker_computes_after_it_was_replaced_is_never_seen(place: Place) -> None:
    deployment, frames = place.deployment, place.frames
    deployment.complete()
    with Client(deployment.urls[0]) as client:
        session = client.open_session()
        found = followed(session, frames[:FROZEN])
        worker = deployment.busiest()
        stub = deployment.stub(worker)
        stub.GetSession(pb.SessionRequest(session=session.id))
        worker.freeze()
        try:
            # The gateway finds out that it is frozen, and asks the other. These it has, and nobody cancels.
            without = frame(place, pb.TrackPrompt(remove=pb.Removal(object=1)))
            changed, same = (
                stub.AddFrame.future(pb.AddFrameRequest(session=session.id, frame=sent), timeout=120)
                for sent in (without, frame(place))
            )
            found += followed(session, frames[FROZEN : WOKEN + 1])
            epoch, before = stored(place, session.id)
            assert not changed.done() and not same.done()
        finally:
            worker.wake()
        with pytest.raises(grpc.RpcError) as refused:
            changed.result()
        assert from_rpc_error(refused.value).kind is Kind.FRAME_CONFLICT
        again = frame_answer(same.result()).model_dump(mode="json", exclude_none=True)
        assert again["objects"] == found[FROZEN]["objects"]
        # It had to claim the session to learn what became of it, and changed nothing else.
        after, parts = stored(place, session.id)
        assert after > epoch and parts == before
        found += followed(session, frames[WOKEN + 1 :])
        assert found == place.undisturbed
