"""headstart's own pieces. Each subcommand is one measured process and writes its facts to `--out`.

python -m benchmarks.speed.ours matrix|features|probe-data|probe|finetune ... --out FILE

Whole comparisons are run by their command line (processes.py).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from onnx import TensorProto, helper
from torch import nn

from headstart.data.preprocessing import apply_preprocessing
from headstart.data.sources import load_images
from headstart.data.splits import make_split
from headstart.files import cache_folder
from headstart.models.backbones import build_backbone, find_backbone, split_for_fine_tuning
from headstart.models.cost import complexity
from headstart.models.network import BackboneClassifier
from headstart.records import Images, ImageSet, Indices, Preprocessing
from headstart.study.observer import SilentObserver
from headstart.study.presets import fine_tune_recipe
from headstart.study.resolving import Overrides, backbone_preprocessing, resolve_recipe
from headstart.training.batches import ArrayBatches, ImageBatches
from headstart.training.engine import train_network
from headstart.training.features import extract_features
from headstart.training.frozen import FrozenNetwork, fastest
from headstart.training.probe import TO_COMPARE, fit_probe
from headstart.training.softmax_regression import SoftmaxRegression
from headstart.training.standardised import StandardisedRows

from .keras_weights import ARCHITECTURE
from .log_loss import penalised
from .subcommands import run_subcommand

CPU = torch.device("cpu")
_MATRIX_SIDE, _MATRIX_ROUNDS = 2048, 20
_FORWARD_SECONDS = 3.0  # chosen: the forward pass of prepared inputs is repeated for at least so long
_ENOUGH_FOR_A_RACE = 10**9  # images to come: of the forward pass alone the best way is wanted, however long its race
_VAL_SHARE = 10  # of the probe's rows one in ten is val, too


def matrix(arguments: argparse.Namespace) -> dict[str, Any]:
    """The machine's float32 matrix-product rate, as each library reaches it: the best of several products.

    More than one library, because on some processors PyTorch's is not the quickest, and a network run by another can then
    exceed it.
    """
    left, right = torch.randn(_MATRIX_SIDE, _MATRIX_SIDE), torch.randn(_MATRIX_SIDE, _MATRIX_SIDE)
    arrays = {"left": left.numpy(), "right": right.numpy()}
    session = _product_session()
    products: dict[str, Callable[[], Any]] = {
        "torch": lambda: torch.mm(left, right),
        "numpy": lambda: arrays["left"] @ arrays["right"],
        "onnxruntime": lambda: session.run(None, arrays),
    }
    rates = {}
    for library, product in products.items():
        durations = []
        for _ in range(_MATRIX_ROUNDS):
            started = time.perf_counter()
            product()
            durations.append(time.perf_counter() - started)
        rates[library] = 2 * _MATRIX_SIDE**3 / min(durations)
    return {"flop_per_second": rates}


def _product_session() -> Any:
    shape = [_MATRIX_SIDE, _MATRIX_SIDE]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("left", "right")]
    output = helper.make_tensor_value_info("product", TensorProto.FLOAT, shape)
    node = helper.make_node("MatMul", ["left", "right"], ["product"])
    graph = helper.make_graph([node], "product", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def features(arguments: argparse.Namespace) -> dict[str, Any]:
    """From decoded images to features on disk; then the forward pass of prepared inputs alone."""
    pixels = _training_images(arguments)[: arguments.images]
    backbone = find_backbone(ARCHITECTURE, arguments.weights)
    module = build_backbone(backbone)
    preprocessing = backbone_preprocessing(backbone, pixels.shape[1], arguments.size)
    started = time.perf_counter()
    found = extract_features(
        _image_set(pixels), module, "measured", preprocessing, device=CPU, reporter=SilentObserver()
    )
    seconds = time.perf_counter() - started
    raced = any((cache_folder() / "ways").glob("*.json"))

    inputs = apply_preprocessing(pixels[: arguments.forward_images], preprocessing)
    network = fastest(build_backbone(backbone), "measured alone", inputs[:64], CPU, _ENOUGH_FOR_A_RACE)
    return {
        "seconds": seconds,
        "raced": raced,
        "engine": found.engine,
        "way": f"{network.way.workers} x {network.way.threads} threads, batch {network.way.batch}",
        "forward_images_per_second": _forward_rate(network, inputs),
        "macs": complexity(module, arguments.size).macs,
    }


def _forward_rate(network: FrozenNetwork, inputs: torch.Tensor) -> float:
    """Images per second of the way that was chosen, over all inputs again and again."""
    starts = range(0, len(inputs), network.way.batch)

    def run(start: int) -> int:
        return len(network.forward(inputs[start : start + network.way.batch]))

    with ThreadPoolExecutor(network.way.workers) as pool:
        list(pool.map(run, starts[: 2 * network.way.workers]))
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < _FORWARD_SECONDS:
            done += sum(pool.map(run, starts))
        return done / (time.perf_counter() - started)


def probe_data(arguments: argparse.Namespace) -> dict[str, Any]:
    """Features of all training images at 96 px, for both sides of the probe."""
    backbone = find_backbone(ARCHITECTURE, arguments.weights)
    pixels = _training_images(arguments)
    values = extract_features(
        _image_set(pixels),
        build_backbone(backbone),
        f"{backbone.weights_sha256}",
        backbone_preprocessing(backbone, pixels.shape[1], arguments.size),
        device=CPU,
        reporter=SilentObserver(),
    ).values
    np.save(arguments.features, values)
    with np.load(arguments.arrays) as arrays:
        np.save(arguments.labels, arrays["train_labels"])
    return {"images": len(values), "features": values.shape[1]}


def probe(arguments: argparse.Namespace) -> dict[str, Any]:
    """The convex probe for a path of L2; on request also what the same path reaches at each L2, not timed.

    Nothing is chosen here: every value is fitted, as the peer's are; val is a tenth of the training rows.
    """
    values, labels = np.load(arguments.features), np.load(arguments.labels)
    wanted = [float(one) for one in arguments.l2.split(",")]

    rows, classes = np.arange(len(labels)), int(labels.max()) + 1
    started = time.perf_counter()
    head = fit_probe(values, labels, rows, rows[::_VAL_SHARE], classes, l2_path=wanted, whole_path=True)
    seconds = time.perf_counter() - started
    facts: dict[str, Any] = {"seconds": seconds, "l2": [l2 for l2, _ in head.val_losses]}
    if arguments.judge:
        facts["reached"] = _reached(values, labels, classes, wanted)
    return facts


def _reached(
    values: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], classes: int, path: list[float]
) -> list[dict[str, float]]:
    """What the timed path has minimised at each L2: the same fits again, in the same order and as closely."""
    with StandardisedRows(values, np.arange(len(values))) as rows:
        standardised = rows.applied(values)
        regression = SoftmaxRegression(rows, torch.from_numpy(labels), classes)
        fitted, reached = regression.start, []
        for l2 in path:
            fitted = regression.minimise(l2, fitted, TO_COMPARE)
            weight, bias = fitted[:, :-1].double().numpy(), fitted[:, -1].double().numpy()
            reached.append({"l2": l2, **penalised(standardised, labels, weight, bias, l2)})
    return reached


class RecomputedBatches(ImageBatches):
    """What fine-tuning would do without kept activations: the frozen trunk runs for every batch anew."""

    def through(self, trunk: nn.Module) -> "RecomputedBatches":
        """Set the frozen trunk."""
        self._trunk = trunk
        return self

    def inputs(self, positions: Indices, rng: np.random.Generator | None) -> torch.Tensor:
        with torch.no_grad():
            activations: torch.Tensor = self._trunk(super().inputs(positions, rng))
        return activations


def finetune(arguments: argparse.Namespace) -> dict[str, Any]:
    """Epochs of the default fine-tuning of the last stages, from kept activations or with the trunk run anew."""
    images = load_images(str(arguments.data), limit=arguments.images)
    split, _ = make_split(images)
    backbone = find_backbone(ARCHITECTURE, arguments.weights)
    recipe = resolve_recipe(fine_tune_recipe(ARCHITECTURE, images), images, split, backbone, Overrides())
    recipe = recipe.with_changes(epochs=arguments.epochs)
    preprocessing: Preprocessing | None = recipe.preprocessing
    assert preprocessing is not None
    example = apply_preprocessing(images.images[split.train[:2]], preprocessing)
    cut = split_for_fine_tuning(build_backbone(backbone), example)
    if cut is None:
        raise SystemExit(f"{ARCHITECTURE} cannot be cut.")
    trunk, tail = cut
    facts: dict[str, Any] = {"input_size": preprocessing.input_size, "train_images": len(split.train)}
    train: ArrayBatches | RecomputedBatches
    val: ArrayBatches | RecomputedBatches
    if arguments.cached:
        kept = extract_features(
            images,
            trunk,
            f"{backbone.weights_sha256}|trunk",
            preprocessing,
            device=CPU,
            reporter=SilentObserver(),
            half_precision=True,
        )
        train, val = (ArrayBatches(kept.values, images.labels, part) for part in (split.train, split.val))
        facts |= {"extraction_seconds": kept.seconds, "kept_bytes": kept.values.nbytes}
    else:
        trunk = trunk.to(memory_format=torch.channels_last)
        train, val = (
            RecomputedBatches(images.images, images.labels, part, preprocessing).through(trunk)
            for part in (split.train, split.val)
        )
    network = BackboneClassifier(tail, backbone.features, len(images.class_names)).to(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as folder:
        fitted = train_network(
            network, train, val, recipe, 0, device=CPU, checkpoint=Path(folder) / "resume", frozen_batch_norm=True
        )
    durations = [epoch.seconds for epoch in fitted.history]
    return facts | {"epoch_seconds": durations, "median_epoch_seconds": statistics.median(durations)}


def _training_images(arguments: argparse.Namespace) -> Images:
    with np.load(arguments.arrays) as arrays:
        images: Images = arrays["train_images"]
    return images


def _image_set(pixels: Images) -> ImageSet:
    """Pixels as a set; the extraction looks at no label."""
    count = len(pixels)
    return ImageSet(
        name="measured",
        source="",
        images=pixels,
        labels=np.zeros(count, np.int64),
        class_names=("one", "other"),
        official_part=None,
        fingerprint=f"first {count} of CIFAR-10",
        image_hashes=np.array([""] * count),
    )


COMMANDS = {"matrix": matrix, "features": features, "probe-data": probe_data, "probe": probe, "finetune": finetune}


def _own_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--features", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--l2")
    parser.add_argument("--judge", action="store_true")
    parser.add_argument("--cached", action="store_true")


if __name__ == "__main__":
    run_subcommand(__doc__, COMMANDS, _own_arguments)
