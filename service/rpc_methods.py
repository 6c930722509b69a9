"""Who may call each RPC. An RPC that is not declared here is refused."""

from collections.abc import Mapping
from enum import Enum, auto


class Access(Enum):
    """What a caller needs."""

    KEY = auto()
    """An API key, where the gateway has keys."""
    PUBLIC = auto()
    """Nothing."""


_OURS = "/efficientsam3.v1."

METHODS: Mapping[str, Access] = {
    f"{_OURS}Segmentation/Segment": Access.KEY,
    f"{_OURS}Segmentation/EncodeImage": Access.KEY,
    f"{_OURS}Segmentation/DeleteImage": Access.KEY,
    f"{_OURS}Tracking/Track": Access.KEY,
    f"{_OURS}Tracking/TrackVideo": Access.KEY,
    f"{_OURS}Tracking/OpenSession": Access.KEY,
    f"{_OURS}Tracking/AddFrame": Access.KEY,
    f"{_OURS}Tracking/GetSession": Access.KEY,
    f"{_OURS}Tracking/ForkSession": Access.KEY,
    f"{_OURS}Tracking/DeleteSession": Access.KEY,
    f"{_OURS}Variants/ListVariants": Access.KEY,
    f"{_OURS}Variants/GetVariant": Access.KEY,
    "/grpc.health.v1.Health/Check": Access.PUBLIC,
    "/grpc.health.v1.Health/Watch": Access.PUBLIC,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Access.PUBLIC,
}
"""Every RPC of gateway and worker by its path."""
