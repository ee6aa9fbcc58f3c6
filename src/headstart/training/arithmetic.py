"""What a device computes with: number format, optimizers, and how often the host waits for it.

`torch.compile` is left out: it takes a minute to start, which is as long as a training of small images takes on a GPU; a step is recorded
as a CUDA graph instead (`steps.py`).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch

_READ_EVERY = (
    50  # chosen: a fraction of a second of a small network; every look at the loss makes the host wait for the GPU
)
_WORTH_THREADS = 1 << 24
"""Multiply-adds (chosen between 8 million, where one thread was as quick as two, and 74 million, where two were; docs/log.md)."""

_SAVE_EVERY = 10.0  # chosen: what a kill may cost; a GPU's epoch of small images takes less than writing a resume file


@dataclass(frozen=True)
class Arithmetic:
    """How training steps run on a device.

    Attributes:
        device_type: of the device.
        dtype: of the network's convolutions and matrix products; weights, loss and optimizer stay float32.
        fused: for PyTorch's optimizers: one kernel for all parameters, or `None` for PyTorch's own choice.
        read_every: batches between two readings of loss and accuracy.
        save_every: seconds between two resume files; 0 writes one after every epoch.
    """

    device_type: str
    dtype: torch.dtype
    fused: bool | None
    read_every: int
    save_every: float = 0.0

    def mixed(self) -> AbstractContextManager[object]:
        """The context for a network's forward pass in training; its outputs are for the caller to make float32 again."""
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device_type, dtype=self.dtype)


def choose_arithmetic(device_type: str, bfloat16: bool) -> Arithmetic:
    """Choose by the device's type, and whether it computes with bfloat16 in hardware.

    >>> choose_arithmetic("cpu", bfloat16=True)
    Arithmetic(device_type='cpu', dtype=torch.float32, fused=True, read_every=1, save_every=0.0)
    """
    if device_type != "cuda":
        # On the CPU a third to a fifth of the time (docs/log.md); on Apple's GPUs it was not tried.
        fused = True if device_type == "cpu" else None
        return Arithmetic(device_type, torch.float32, fused=fused, read_every=1)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    return Arithmetic(device_type, dtype, fused=True, read_every=_READ_EVERY, save_every=_SAVE_EVERY)


def arithmetic_of(device: torch.device) -> Arithmetic:
    """The arithmetic of a device of this machine."""
    if device.type != "cuda":
        return choose_arithmetic(device.type, bfloat16=False)
    with torch.cuda.device(device):
        # Older GPUs emulate bfloat16, more slowly than they compute with float32.
        return choose_arithmetic(device.type, torch.cuda.is_bf16_supported(including_emulation=False))


def threads_for(products: int) -> int:
    """How many of PyTorch's threads a small step is worth: one, where handing the work to others takes longer than doing it.

    Args:
        products: multiply-adds of the step's largest product.
    """
    return 1 if products < _WORTH_THREADS else torch.get_num_threads()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch compute on so many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolutions on a GPU that repeat themselves and do not round float32 to TF32's 10 bits; nothing changes on the CPU.

    The setting is the process's, not the thread's: enter it around the threads that compute, not inside them.
    """
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
