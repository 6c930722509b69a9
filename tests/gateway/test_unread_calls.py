"""gRPC clients that grant no room for answers: what their calls held is free, and others are answered."""

import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import h2.settings

from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from tests.deployment import told
from tests.gateway.conftest import House
from tests.gateway.keyed import REQUEST, metadata, opened
from tests.http2_client import RawGrpc
from tests.keys import KeysFile

HANG_S = 60.0
SEGMENT = "/efficientsam3.v1.Segmentation/Segment"
TRACK = "/efficientsam3.v1.Tracking/Track"
OPENING = pb.TrackRequest(open=pb.OpenSessionRequest())
FRAME = pb.TrackRequest(frame=pb.Frame(frame=0, image=segmentation_pb.Image(data=b"a")))


def until(done: Callable[[], bool]) -> None:
    """Return when it is so."""
    limit = time.monotonic() + HANG_S
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.02)


@contextmanager
def unreading(house: House) -> Iterator[RawGrpc]:
    """Connect a client that grants no byte of any answer."""
    with RawGrpc(house.gateway.grpc_address) as client:
        client.connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        client.flush()
        yield client


def test_a_stream_without_room_for_its_answers_is_closed(house: House, keys: KeysFile) -> None:
    opened(house, keys, write_timeout_s=0.5, stream_idle_s=600.0)
    with unreading(house) as client:
        stream = client.begin(TRACK, *metadata("alice"))
        for message in (OPENING, FRAME, FRAME, FRAME):
            content = message.SerializeToString()
            client.connection.send_data(stream, b"\0" + struct.pack(">I", len(content)) + content)
        client.flush()
        until(lambda: told(house.gateway.url, "open_streams", transport="grpc") == 1)
        until(lambda: told(house.gateway.url, "open_streams", transport="grpc") == 0)


def test_unread_answers_of_one_key_do_not_keep_others_from_being_answered(
    house: House, keys: KeysFile
) -> None:
    opened(house, keys, write_timeout_s=0.5, max_waiting=4)
    with unreading(house) as client:
        for _ in range(50):
            client.send(client.begin(SEGMENT, *metadata("alice")), REQUEST.SerializeToString())
            client.receive(0.0)
        answer = house.stub.Segment(REQUEST, metadata=metadata("bob"), timeout=HANG_S)
        assert answer.variant == "demo"
        # What the unread answers were asked for is over.
        until(lambda: told(house.gateway.url, "inflight_requests") == 0)
