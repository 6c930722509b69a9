"""The gRPC server that gateway and worker both are: the same services, limits, health and reflection."""

import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service.config import MIB
from service.pb.efficientsam3.v1 import (
    segmentation_pb2,
    segmentation_pb2_grpc,
    tracking_pb2,
    tracking_pb2_grpc,
    variants_pb2,
    variants_pb2_grpc,
)
from service.rpc import ErrorsAsStatuses
from service.tracing import OFF, Tracing

# Full names; their health is known by them, too.
SEGMENTATION: str = segmentation_pb2.DESCRIPTOR.services_by_name["Segmentation"].full_name
TRACKING: str = tracking_pb2.DESCRIPTOR.services_by_name["Tracking"].full_name
VARIANTS: str = variants_pb2.DESCRIPTOR.services_by_name["Variants"].full_name
SERVICES = (SEGMENTATION, TRACKING, VARIANTS)


def make_server(
    segmentation: segmentation_pb2_grpc.SegmentationServicer,
    tracking: tracking_pb2_grpc.TrackingServicer,
    variants: variants_pb2_grpc.VariantsServicer,
    state: "health.aio.HealthServicer",
    max_body_bytes: int,
    tracing: Tracing = OFF,
) -> grpc.aio.Server:
    """The server, without a port yet. What its methods raise is told as `rpc.ErrorsAsStatuses` says.

    `tracing` makes the spans of its calls.
    """
    options = [
        # Above the limit, so that a message in between is refused by `prompts.check`, with its kind.
        ("grpc.max_receive_message_length", 2 * max_body_bytes + MIB),
        ("grpc.max_send_message_length", -1),
        # Two processes on one port would share its calls by chance.
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(interceptors=[ErrorsAsStatuses(tracing)], options=options)
    segmentation_pb2_grpc.add_SegmentationServicer_to_server(segmentation, server)
    tracking_pb2_grpc.add_TrackingServicer_to_server(tracking, server)
    variants_pb2_grpc.add_VariantsServicer_to_server(variants, server)
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server
