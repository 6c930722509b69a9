"""The gRPC server that gateway and worker both are: the same services, limits, health and reflection."""

from collections.abc import Sequence

import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service.config import Limits
from service.message_reader import MessageReader, max_message_bytes
from service.pb.efficientsam3.v1 import (
    segmentation_pb2,
    segmentation_pb2_grpc,
    tracking_pb2,
    tracking_pb2_grpc,
    variants_pb2,
    variants_pb2_grpc,
)
from service.rpc import Admit, ErrorsAsStatuses, trusted
from service.tracing import OFF, Tracing

# Full names; their health is known by them, too.
SEGMENTATION: str = segmentation_pb2.DESCRIPTOR.services_by_name["Segmentation"].full_name
TRACKING: str = tracking_pb2.DESCRIPTOR.services_by_name["Tracking"].full_name
VARIANTS: str = variants_pb2.DESCRIPTOR.services_by_name["Variants"].full_name
SERVICES = (SEGMENTATION, TRACKING, VARIANTS)


# Calls of one connection at the same time; a client holds more back until others have ended.
_MAX_CONCURRENT_STREAMS = 1000
# Bytes of a call's metadata.
_MAX_METADATA_BYTES = 16 * 1024
# How long a connection may take for its handshake, TLS included; how long it may have no call; how often a
# silent peer is probed; and how long it may take to answer that.
_HANDSHAKE_S, _IDLE_S, _PROBE_S, _PROBE_ANSWER_S = 10, 900, 60, 20


def make_server(
    segmentation: segmentation_pb2_grpc.SegmentationServicer,
    tracking: tracking_pb2_grpc.TrackingServicer,
    variants: variants_pb2_grpc.VariantsServicer,
    state: "health.aio.HealthServicer",
    limits: Limits,
    tracing: Tracing = OFF,
    admit: Admit = trusted,
    reader: MessageReader | None = None,
    write_timeout_s: float | None = None,
    before: Sequence[grpc.aio.ServerInterceptor] = (),
) -> grpc.aio.Server:
    """The server, without a port yet. What its methods raise is told as `rpc.ErrorsAsStatuses` says.

    `tracing` makes the spans of its calls. `admit` and `reader` decide whose messages are received, and how;
    without them callers are trusted. A call whose client reads nothing for `write_timeout_s` is ended. The
    interceptors `before` see calls first.
    """
    interceptor = ErrorsAsStatuses(tracing, admit, reader or MessageReader(limits), write_timeout_s)
    server = grpc.aio.server(interceptors=[*before, interceptor], options=_options(limits))
    segmentation_pb2_grpc.add_SegmentationServicer_to_server(segmentation, server)
    tracking_pb2_grpc.add_TrackingServicer_to_server(tracking, server)
    variants_pb2_grpc.add_VariantsServicer_to_server(variants, server)
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server


def _options(limits: Limits) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", max_message_bytes(limits)),
        ("grpc.max_send_message_length", -1),
        # Two processes on one port would share its calls by chance.
        ("grpc.so_reuseport", 0),
        # Otherwise megabytes of a message are received before the server asks for it.
        ("grpc.http2.bdp_probe", 0),
        # gRPC would unpack a message before its sender's limits apply. Bit 0 is for uncompressed messages.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.max_concurrent_streams", _MAX_CONCURRENT_STREAMS),
        ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_S * 1000),
        ("grpc.max_connection_idle_ms", _IDLE_S * 1000),
        ("grpc.keepalive_time_ms", _PROBE_S * 1000),
        ("grpc.keepalive_timeout_ms", _PROBE_ANSWER_S * 1000),
    ]
