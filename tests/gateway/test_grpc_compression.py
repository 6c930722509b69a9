"""Compressed gRPC messages are refused before anything is unpacked."""

import gzip
import struct

import grpc
import pytest

from tests.gateway.conftest import House
from tests.gateway.keyed import REQUEST, metadata, opened
from tests.http2_client import RawGrpc
from tests.keys import KeysFile
from tests.peak_memory import peak

MIB = 1024 * 1024
# Size of the unpacked bomb: just below what gRPC itself allows.
UNPACKED = 60 * MIB
METHODS = [
    "/efficientsam3.v1.Segmentation/Segment",
    "/efficientsam3.v1.Tracking/Track",
    "/efficientsam3.v1.Tracking/TrackVideo",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """A compressed message of zeros, with the prefix that gRPC gives it."""
    packed = gzip.compress(bytes(UNPACKED), 9)
    return b"\1" + struct.pack(">I", len(packed)) + packed


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_message_is_refused_and_never_unpacked(
    house: House, keys: KeysFile, bomb: bytes, method: str, encoding: str
) -> None:
    opened(house, keys)
    before = peak(reset=True)
    with RawGrpc(house.gateway.grpc_address) as client:
        key = () if method.startswith("/grpc.") else metadata("alice")
        stream = client.begin(method, ("grpc-encoding", encoding), *key)
        client.send_raw(stream, bomb)
        code = client.wait(stream)
    assert peak() - before < UNPACKED // 2
    assert code == grpc.StatusCode.UNIMPLEMENTED.value[0]
    assert house.stub.Segment(REQUEST, metadata=metadata("alice")).variant == "demo"
