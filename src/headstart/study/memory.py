"""Peak memory of a piece of work, watched from a thread."""

import threading
from types import TracebackType
from typing import Self

import psutil
import torch

_INTERVAL_SECONDS = 0.05  # chosen: allocations that decide a peak live longer than this


class PeakMemory:
    """Context manager whose `peak_bytes` is the highest resident memory of this process seen inside the block.

    Memory-mapped files count while their pages are resident. On CUDA it is the allocator's own peak instead.
    """

    def __init__(self, device: torch.device) -> None:
        self.peak_bytes = 0
        self._device = device
        self._process = psutil.Process()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._look()
        if self._device.type == "cuda":
            self.peak_bytes = int(torch.cuda.max_memory_allocated(self._device))

    def _watch(self) -> None:
        while not self._ended.wait(_INTERVAL_SECONDS):
            self._look()

    def _look(self) -> None:
        self.peak_bytes = max(self.peak_bytes, int(self._process.memory_info().rss))
