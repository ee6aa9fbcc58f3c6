"""The fastest way to run a frozen network on this machine: which engine, how many threads, how many images at a time.

On the CPU ONNX Runtime does the work if it gives PyTorch's numbers. Whether one session on all cores or one thread per
core is quicker depends on the network, the images' size and the caches (docs/log.md), so a long job begins with a race
of a few seconds; the winner is remembered in the cache folder.
"""

import contextlib
import io
import logging
import platform
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.files import cache_folder, canonical_json, read_json, sha256_of_text, write_json

_CHECKED_IMAGES = 4
_TOLERANCE = 1e-4  # relative to the largest feature; float32 convolutions in another order stay below 1e-5
_BATCH = 32  # measured: 16 to 64 are within 5% of each other at 96 to 160 px on two cores
_GPU_BATCH = 256  # chosen: large enough to fill one
_GPU_WORKERS = 2  # chosen: while one batch computes, the next is brought there
_SMALL_BATCHES = (4, 16)  # of a thread that has a core to itself: what fits that core's own cache
_RACE_ROUNDS, _RACE_SECONDS = 2, 0.25  # chosen: the whole race stays below two seconds
_WORTH_A_RACE = 15.0  # seconds; chosen: a shorter job is over before a better way has paid for the race

_INPUT = "images"
_ANY_NUMBER = ({0: torch.export.Dim("n", min=1)},)

_log = logging.getLogger(__name__)

Forward = Callable[[torch.Tensor], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Way:
    """`workers` threads call the network at once, `batch` images each; a call itself runs on `threads` threads."""

    workers: int
    threads: int
    batch: int


@dataclass(frozen=True)
class FrozenNetwork:
    """A network ready to run: `forward` takes what its module took, images along the first axis; `way.workers` threads may call it at once.

    It takes inputs from the CPU; a network that PyTorch runs on a GPU takes them from there, too.
    """

    forward: Forward
    engine: str
    way: Way


def choose_forward(module: nn.Module, example: torch.Tensor, device: torch.device) -> tuple[Forward, str]:
    """Choose how to run a frozen module: ONNX Runtime on the CPU if it gives PyTorch's numbers, else PyTorch.

    Args:
        module: in evaluation mode.
        example: `(n, ...)`, a few real inputs of the type that the module takes, which the choice is checked on.
        device: where PyTorch would run.

    Returns:
        A function from such inputs on the CPU, `(N, ...)`, to a float32 array, and the engine's name.
    """
    graph = _checked_graph(module.to(device), example, device)
    if graph is None:
        return _torch_forward(module, device), f"torch ({device.type})"
    return _onnx_forward(graph, torch.get_num_threads()), "onnxruntime"


def fastest(
    module: nn.Module, key: str, inputs: torch.Tensor, device: torch.device, images_to_come: int
) -> FrozenNetwork:
    """Choose how to run a frozen module over many images.

    Args:
        module: in evaluation mode, to `(N, ...) float32` from prepared images, or from pixels as `extract_features` hands them over.
        key: names the module's weights and its preprocessing; what is remembered belongs to it.
        inputs: `(n, ...)`, a few dozen real inputs of the type that the module takes: what is checked and timed on.
        device: where PyTorch would run.
        images_to_come: decides whether a race would pay.
    """
    graph = _checked_graph(module.to(device), inputs[:_CHECKED_IMAGES], device)
    threads = torch.get_num_threads()
    if device.type != "cpu":
        module = module.to(memory_format=torch.channels_last)
        way = Way(_GPU_WORKERS, threads, _GPU_BATCH)
        return FrozenNetwork(_torch_forward(module, device), f"torch ({device.type})", way)
    plain = Way(workers=1, threads=threads, batch=_BATCH)
    failure = _remembered(key, threads).with_suffix(".failed")
    if graph is None:
        write_json(failure, {"engine": "torch"})
        return FrozenNetwork(_torch_forward(module, device), f"torch ({device.type})", plain)
    failure.unlink(missing_ok=True)
    remembered = _remembered(key, threads)
    if remembered.exists():
        way = Way(**read_json(remembered))
        return FrozenNetwork(_onnx_forward(graph, way.threads), "onnxruntime", way)
    forwards = {plain: _onnx_forward(graph, threads)}
    if threads > 1 and images_to_come / _images_per_second(forwards[plain], inputs, plain) > _WORTH_A_RACE:
        alone, few = _onnx_forward(graph, 1), inputs[:_CHECKED_IMAGES]
        if _same(alone(few), forwards[plain](few)):  # the other session has been checked against PyTorch
            forwards |= {Way(workers=threads, threads=1, batch=batch): alone for batch in _SMALL_BATCHES}
        way = _race(forwards, inputs)
        write_json(remembered, asdict(way))
    else:
        way = plain
    return FrozenNetwork(forwards[way], "onnxruntime", way)


def export_has_failed(key: str) -> bool:
    """Whether PyTorch had to run this network here the last time, because ONNX Runtime could not."""
    return _remembered(key, torch.get_num_threads()).with_suffix(".failed").exists()


def _race(forwards: dict[Way, Forward], inputs: torch.Tensor) -> Way:
    """The way with the best of two rounds, in turns."""
    rates = dict.fromkeys(forwards, 0.0)
    for _ in range(_RACE_ROUNDS):
        for way, forward in forwards.items():
            rates[way] = max(rates[way], _images_per_second(forward, inputs, way))
    _log.info("Frozen network, images per second: %s", {str(way): round(rate, 1) for way, rate in rates.items()})
    return max(rates, key=lambda way: rates[way])


def _images_per_second(forward: Forward, inputs: torch.Tensor, way: Way) -> float:
    batch = inputs[: way.batch]
    forward(batch)  # warm-up: the first call allocates

    def run(_: int) -> int:
        done = 0
        while time.perf_counter() < end:
            forward(batch)
            done += len(batch)
        return done

    started = time.perf_counter()
    end = started + _RACE_SECONDS
    with ThreadPoolExecutor(way.workers) as pool:
        done = sum(pool.map(run, range(way.workers)))
    return done / (time.perf_counter() - started)


def _remembered(key: str, threads: int) -> Path:
    import onnxruntime

    facts = {"network": key, "threads": threads, "machine": platform.processor() or platform.machine()}
    facts |= {"node": platform.node(), "onnxruntime": onnxruntime.__version__}
    return cache_folder() / "ways" / f"{sha256_of_text(canonical_json(facts))}.json"


def _torch_forward(module: nn.Module, device: torch.device) -> Forward:
    def forward(inputs: torch.Tensor) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            outputs: npt.NDArray[np.float32] = module(inputs.to(device)).float().cpu().numpy()
        return outputs

    return forward


def _checked_graph(module: nn.Module, example: torch.Tensor, device: torch.device) -> bytes | None:
    """The module as an ONNX graph that gives PyTorch's numbers on the example; `None` where PyTorch has to run it."""
    if device.type != "cpu":
        return None
    expected, differs = _torch_forward(module, device)(example), False
    for exported in (_traced, _translated):
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
                warnings.simplefilter("ignore")  # the exporters warn of their own internals
                graph = exported(module, example.contiguous())
            forward = _onnx_forward(graph, torch.get_num_threads())
            # One image alone, too: an exporter may have taken the example's number of images for a constant.
            found, alone = forward(example), forward(example[:1])
        except Exception as error:  # noqa: BLE001 - the exporters fail in many ways; PyTorch always works
            _log.info("ONNX export (%s) failed: %s", exported.__name__, error)
            continue
        if _same(found, expected) and _same(alone, expected[:1]):
            return graph
        differs = True
    if differs:
        _log.warning("ONNX Runtime's features differ from PyTorch's; PyTorch extracts them.")
    return None


def _same(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> bool:
    return np.allclose(found, expected, rtol=0, atol=_TOLERANCE * (float(np.abs(expected).max()) or 1.0))


def _traced(module: nn.Module, example: torch.Tensor) -> bytes:
    """The graph by PyTorch's older exporter: as fast as the newer one's, made in a quarter of the time (docs/log.md).

    It gets the module as captured by `torch.export`, in which everything that follows from the image's size is a constant
    already. By itself it writes that down as operators, which cost MobileNetV2 a quarter of its speed.
    """
    captured = torch.export.export(module, (example,), dynamic_shapes=_ANY_NUMBER, strict=False).module()
    plain = torch.fx.GraphModule(captured, captured.graph)  # the captured module refuses to be asked for `eval`
    buffer: Any = io.BytesIO()  # which this exporter takes, whatever its annotation says
    torch.onnx.export(
        plain,
        (example,),
        buffer,
        dynamo=False,
        input_names=[_INPUT],
        output_names=["features"],
        dynamic_axes={_INPUT: [0]},
    )
    graph: bytes = buffer.getvalue()
    return graph


def _translated(module: nn.Module, example: torch.Tensor) -> bytes:
    """The graph by the newer exporter, which knows more operators."""
    program = torch.onnx.export(
        module, (example,), dynamo=True, input_names=[_INPUT], dynamic_shapes=_ANY_NUMBER, verbose=False
    )
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    graph: bytes = program.model_proto.SerializeToString()
    return graph


def _onnx_forward(graph: bytes, threads: int) -> Forward:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.log_severity_level = 4  # what fails is raised; it need not be printed, too
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def forward(inputs: torch.Tensor) -> npt.NDArray[np.float32]:
        # NumPy copies in this thread. PyTorch would wake its own threads, which then wait by spinning on the cores that the
        # session's threads need: it halved the rate of small networks (docs/log.md).
        outputs: npt.NDArray[np.float32] = session.run(None, {_INPUT: np.ascontiguousarray(inputs.numpy())})[0]
        return outputs

    return forward
