"""Tensors as stores keep them: IEEE half floats in a message."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.pb.efficientsam3.state.v1 import session_pb2 as state_pb


def message_of(tensor: NDArray[Any]) -> state_pb.Tensor:
    """Values that are no half floats are rounded."""
    data = np.ascontiguousarray(tensor, dtype="<f2").tobytes()
    return state_pb.Tensor(shape=tensor.shape, data=data)


def tensor_of(message: state_pb.Tensor) -> NDArray[np.float16]:
    """Read-only. Raises ValueError where there are not as many bytes as the shape says."""
    return np.frombuffer(message.data, "<f2").reshape(message.shape)
