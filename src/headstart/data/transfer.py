"""Arrays on their way to a device."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch


def to_device(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Bring an array to a device without waiting for the work that is already queued there.

    A copy from ordinary memory waits for that work. One from pinned memory does not, and PyTorch keeps the pinned memory
    until the copy is over.

    Args:
        array: any type and shape that torch has; at least one axis.
        device: on the CPU the tensor shares memory with the array, where that may be written to.

    Returns:
        A tensor of the same type and shape.
    """
    array = np.ascontiguousarray(array)
    tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
