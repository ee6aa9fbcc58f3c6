"""Frozen features: each image goes through the frozen network once, the result is kept on disk.

On the CPU ONNX Runtime does the work (it was twice as fast as PyTorch's eager mode for MobileNetV2, see docs/log.md); its
output is checked against PyTorch's on the first images. On a GPU, and where an export fails, PyTorch does it.
"""

import contextlib
import io
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch import nn

from headstart.data.preprocessing import apply_preprocessing
from headstart.files import cache_folder, canonical_json, read_json, sha256_of_text, write_json, written_atomically
from headstart.records import ImageSet, Preprocessing
from headstart.training.progress import Reporter

_BATCH = 32  # measured: 16 to 64 are within 5% of each other at 96 to 160 px on two cores
_CHECKED_IMAGES = 4
_TOLERANCE = 1e-3  # relative to the largest feature; float32 convolutions in another order stay below 1e-5
_FORMAT = 1  # raise it when the same key would hold other numbers

_log = logging.getLogger(__name__)

Forward = Callable[[torch.Tensor], npt.NDArray[np.float32]]


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
    """
    key = sha256_of_text(
        canonical_json(
            {
                "format": _FORMAT,
                "data": images.fingerprint,
                "module": module_key,
                "preprocessing": asdict(preprocessing),
                "half": half_precision,
                "device": device.type,
            }
        )
    )
    folder = cache_folder() / "features" / key
    folder.mkdir(parents=True, exist_ok=True)
    values_path, facts_path = folder / "features.npy", folder / "facts.json"
    with FileLock(folder / "lock"):
        if not facts_path.exists():
            facts = _extract_to(values_path, images, module, preprocessing, device, reporter, half_precision)
            write_json(facts_path, facts)
        facts = read_json(facts_path)
        values = np.load(values_path, mmap_mode="r")
    return Features(values, facts["seconds"], facts["engine"])


def _extract_to(
    path: Path,
    images: ImageSet,
    module: nn.Module,
    preprocessing: Preprocessing,
    device: torch.device,
    reporter: Reporter,
    half_precision: bool,
) -> dict[str, Any]:
    started = time.perf_counter()
    total = len(images.images)
    reporter.stage("features", total)
    first = apply_preprocessing(images.images[:_CHECKED_IMAGES], preprocessing)
    forward, engine = choose_forward(module, first, device)
    shape = forward(first).shape[1:]
    dtype = np.float16 if half_precision else np.float32
    working = time.perf_counter()
    with written_atomically(path) as temporary:
        values = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=(total, *shape))
        for begin in range(0, total, _BATCH):
            inputs = apply_preprocessing(images.images[begin : begin + _BATCH], preprocessing)
            values[begin : begin + len(inputs)] = forward(inputs)
            done = begin + len(inputs)
            reporter.advance(done, rate=done / (time.perf_counter() - working))
        values.flush()
        del values
    return {"seconds": time.perf_counter() - started, "engine": engine}


def choose_forward(module: nn.Module, example: torch.Tensor, device: torch.device) -> tuple[Forward, str]:
    """Choose how to run a frozen module: ONNX Runtime on the CPU if it gives PyTorch's numbers, else PyTorch.

    Args:
        module: in evaluation mode.
        example: `(n, 3, S, S) float32`, a few real inputs that the choice is checked on.
        device: where PyTorch would run.

    Returns:
        A function from `(N, 3, S, S) float32` on the CPU to a float32 array, and the engine's name.
    """
    module = module.to(device)

    def with_torch(inputs: torch.Tensor) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            outputs: npt.NDArray[np.float32] = module(inputs.to(device)).float().cpu().numpy()
        return outputs

    if device.type != "cpu":
        return with_torch, f"torch ({device.type})"
    try:
        with_onnx = _onnx_forward(module, example)
    except Exception as error:  # noqa: BLE001 - the exporter fails in many ways; the other engine always works
        _log.info("ONNX export failed, PyTorch extracts the features: %s", error)
        return with_torch, "torch (cpu)"
    expected, found = with_torch(example), with_onnx(example)
    scale = float(np.abs(expected).max()) or 1.0
    if not np.allclose(expected, found, rtol=0, atol=_TOLERANCE * scale):
        _log.warning("ONNX Runtime's features differ from PyTorch's; PyTorch extracts them.")
        return with_torch, "torch (cpu)"
    return with_onnx, "onnxruntime"


def _onnx_forward(module: nn.Module, example: torch.Tensor) -> Forward:
    import onnxruntime

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program = torch.onnx.export(
            module,
            (example.contiguous(),),
            dynamo=True,
            input_names=["images"],
            output_names=["features"],
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def forward(inputs: torch.Tensor) -> npt.NDArray[np.float32]:
        # NumPy copies in this thread. PyTorch would wake its own threads, which then wait by spinning on the cores that the
        # session's threads need: it halved the rate of small networks (docs/log.md).
        outputs: npt.NDArray[np.float32] = session.run(None, {"images": np.ascontiguousarray(inputs.numpy())})[0]
        return outputs

    return forward
