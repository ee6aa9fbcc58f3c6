"""Frozen features: each image goes through the frozen network once, the result is kept on disk."""

import logging
import os
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch import nn

from headstart.data.parallel import map_in_order
from headstart.data.preprocessing import normalise, resized_pixels
from headstart.data.transfer import to_device
from headstart.errors import RunError
from headstart.files import (
    cache_folder,
    canonical_json,
    kept_in,
    read_json,
    release_pages,
    reserve,
    sha256_of_text,
    write_json,
    written_atomically,
)
from headstart.records import ImageSet, Preprocessing
from headstart.training.arithmetic import full_precision, torch_threads
from headstart.training.frozen import FrozenNetwork, fastest
from headstart.training.progress import Reporter
from headstart.training.rows import held_rows

_log = logging.getLogger(__name__)

_CHUNK = 64  # images that a worker prepares at once; chosen: small enough for the cache, long against the handing over
_FORMAT = 1  # raise it when the same key would hold other numbers
_VALUES, _FACTS = "features.npy", "facts.json"


@dataclass(frozen=True)
class Features:
    """`values`: `(N, ...)` memory-mapped, one row per image of the set; `seconds` it took when it was made; `engine` that made it."""

    values: npt.NDArray[np.floating]
    seconds: float
    engine: str


def extract_features(
    images: ImageSet,
    module: nn.Module,
    module_key: str,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    reporter: Reporter,
    half_precision: bool = False,
) -> Features:
    """Run every image of a set through a frozen network, or read the result of an earlier time.

    On the CPU ONNX Runtime runs it where its numbers are PyTorch's (`frozen.fastest`); on a GPU PyTorch does, in float32: bfloat16
    and TF32 would cost three digits that a probe can use. The pixels travel as 8-bit numbers and are prepared there.

    Args:
        images: all parts; no label is looked at.
        module: in evaluation mode, `(N, 3, S, S) float32` to `(N, ...) float32`.
        module_key: names the module's weights and cut; part of the cache's key.
        preprocessing: between pixels and network.
        device: where PyTorch would run.
        reporter: told how far it is.
        half_precision: keep float16 instead of float32 (for activations in the middle of a network).

    Returns:
        The features, in the order of the set.

    Raises:
        DataError: the cache folder cannot be written, or the disk is full.
    """
    folder = _folder(images, module_key, preprocessing, device, half_precision)
    if not os.access(folder, os.W_OK) and (found := _read(folder, len(images.images))) is not None:
        return found  # a cache that others share and only read
    with kept_in(cache_folder(), "Features of a frozen network"):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            found = _read(folder, len(images.images))
            if found is not None:
                return found
            for leftover in folder.glob(f".{_VALUES}.*"):  # of a run that was killed
                leftover.unlink()
            key = network_key(module_key, preprocessing)
            facts = _extract_to(folder / _VALUES, images, module, key, preprocessing, device, reporter, half_precision)
            write_json(folder / _FACTS, facts)
            return Features(np.load(folder / _VALUES, mmap_mode="r"), facts["seconds"], facts["engine"])


class _FromPixels(nn.Module):
    """A network that is fed resized pixels, `(N, S, S, 3) uint8`: the engine that runs it scales and normalises them, too.

    A quarter of the bytes are handed over, and what PyTorch took for the numbers between is saved (docs/log.md).
    """

    def __init__(self, module: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.module, self._preprocessing = module, preprocessing
        # What `normalise` keeps for its next caller is made here: in an exporter's hands it would be a stand-in without numbers.
        normalise(torch.zeros((1, 3, 1, 1), dtype=torch.uint8), preprocessing)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        prepared = normalise(pixels.permute(0, 3, 1, 2), self._preprocessing)
        features: torch.Tensor = self.module(prepared)
        return features


def network_key(module_key: str, preprocessing: Preprocessing) -> str:
    """What `frozen` remembers of a network belongs to: its weights, what it sees, and that its engine prepares the pixels."""
    return f"{module_key} from pixels {canonical_json(asdict(preprocessing))}"


def are_extracted(
    images: ImageSet,
    module_key: str,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    half_precision: bool = False,
) -> bool:
    """Whether `extract_features` with these arguments would read the result of an earlier time."""
    return _read(_folder(images, module_key, preprocessing, device, half_precision), len(images.images)) is not None


def _read(folder: Path, count: int) -> Features | None:
    """The features of an earlier time; `None` where there are none, or they are not whole."""
    if not (folder / _FACTS).exists():
        return None
    try:
        facts, values = read_json(folder / _FACTS), np.load(folder / _VALUES, mmap_mode="r")
        found = Features(values, facts["seconds"], facts["engine"])
    except (RunError, OSError, ValueError, KeyError, EOFError) as error:
        _log.warning("The features in %s are damaged (%s) and are made again.", folder, error)
        return None
    return found if len(values) == count else None


def _folder(
    images: ImageSet, module_key: str, preprocessing: Preprocessing, device: torch.device, half_precision: bool
) -> Path:
    key = {
        "format": _FORMAT,
        "data": images.fingerprint,
        "module": module_key,
        "preprocessing": asdict(preprocessing),
        "half": half_precision,
        "device": device.type,
    }
    return cache_folder() / "features" / sha256_of_text(canonical_json(key))


def _extract_to(
    path: Path,
    images: ImageSet,
    module: nn.Module,
    key: str,
    preprocessing: Preprocessing,
    device: torch.device,
    reporter: Reporter,
    half_precision: bool,
) -> dict[str, Any]:
    started = time.perf_counter()
    total = len(images.images)
    reporter.stage("features", total)
    first = resized_pixels(images.images[:_CHUNK], preprocessing)
    network = fastest(_FromPixels(module, preprocessing).eval(), key, first, device, total)
    shape = network.forward(first[:1]).shape[1:]
    dtype = np.float16 if half_precision else np.float32
    with written_atomically(path) as temporary:
        values = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=(total, *shape))
        reserve(temporary, values.offset)
        _fill(values, images, network, preprocessing, device, reporter)
        values.flush()
        del values
    return {"seconds": time.perf_counter() - started, "engine": network.engine}


def _fill(
    values: npt.NDArray[np.floating],
    images: ImageSet,
    network: FrozenNetwork,
    preprocessing: Preprocessing,
    device: torch.device,
    reporter: Reporter,
) -> None:
    chunk, total = max(_CHUNK, network.way.batch), len(values)

    def extract(begin: int) -> int:
        inputs = resized_pixels(to_device(images.images[begin : begin + chunk], device), preprocessing)
        for offset in range(0, len(inputs), network.way.batch):
            outputs = network.forward(inputs[offset : offset + network.way.batch])
            values[begin + offset : begin + offset + len(outputs)] = outputs
        return len(inputs)

    done, started = 0, time.perf_counter()
    held = min(held_rows(values), held_rows(images.images))
    begins, workers = range(0, total, chunk), network.way.workers
    # Closed here, whatever happens: an interruption must not leave threads at work behind it.
    results = map_in_order(extract, begins, workers=workers, chunk=1)
    with full_precision(), torch_threads(_threads_beside(network)), closing(results) as counts:
        for count in counts:
            done += count
            if done % held < count:
                release_pages(values)
                release_pages(images.images)
            reporter.advance(done, rate=done / (time.perf_counter() - started))


def _threads_beside(network: FrozenNetwork) -> int:
    """One thread of PyTorch's beside another engine.

    Preparing pixels took it a twentieth of the time, but its other threads would then wait by spinning on the cores that the
    engine needs: MobileNetV2 at 96 px took 13.7 s for 20,000 images, and takes 9.8 s (docs/log.md).
    """
    return 1 if network.engine == "onnxruntime" else torch.get_num_threads()
