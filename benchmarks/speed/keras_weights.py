"""MobileNetV2's weights under timm's names, put into Keras' MobileNetV2, so that both give the same features.

    python -m benchmarks.speed.keras_weights --weights DIR --check

compares the features of 16 random images at 96 px with those of timm's model and prints the largest relative difference.

The file has to be one whose network pads as Keras does (`"pad_type": "same"` and `"bn_eps": 0.001` in its metadata): Keras'
padding is part of its MobileNetV2.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import load_file

ARCHITECTURE = "mobilenetv2_100"
_BLOCKS_OF_STAGES = (1, 2, 3, 4, 3, 3, 1)  # Sandler et al. 2018, table 2
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")  # in Keras' order: gamma, beta, mean, variance
_TOLERANCE = 1e-3
_FAMILY_ARGUMENTS = {"pad_type": "same", "bn_eps": 0.001}


def weights_file(folder: Path) -> Path:
    """The weight file in a folder."""
    return folder / f"{ARCHITECTURE}.safetensors"


def timm_arguments(path: Path) -> dict[str, Any]:
    """What the file's metadata says that `timm.create_model` needs beside the name."""
    with safe_open(path, "numpy") as file:
        metadata: dict[str, str] = file.metadata() or {}
    arguments: dict[str, Any] = json.loads(metadata.get("timm_kwargs", "{}"))
    return arguments


def features_model(size: int, path: Path) -> Any:
    """Keras' MobileNetV2 without its classifier, with the weights of a file.

    Args:
        size: side of the input in pixels.
        path: of the weight file.

    Returns:
        A model from `(N, size, size, 3)`, pixels from -1 to 1, to `(N, 1280)` pooled features.
    """
    import keras

    if timm_arguments(path) != _FAMILY_ARGUMENTS:
        raise SystemExit(
            f"{path}: timm_kwargs is {timm_arguments(path)}, expected {_FAMILY_ARGUMENTS}, as Keras has it."
        )
    model = keras.applications.MobileNetV2(
        input_shape=(size, size, 3), include_top=False, weights=None, pooling="avg", alpha=1.0
    )
    tensors = load_file(path)
    for layer, arrays in keras_arrays(tensors).items():
        model.get_layer(layer).set_weights(arrays)
    return model


def keras_arrays(tensors: dict[str, npt.NDArray[np.float32]]) -> dict[str, list[npt.NDArray[np.float32]]]:
    """Each Keras layer's arrays, by its name, from timm's tensors."""
    arrays = {
        "Conv1": [_kernel(tensors["conv_stem.weight"])],
        "bn_Conv1": _statistics(tensors, "bn1"),
        "Conv_1": [_kernel(tensors["conv_head.weight"])],
        "Conv_1_bn": _statistics(tensors, "bn2"),
    }
    blocks = [f"blocks.{stage}.{block}" for stage, count in enumerate(_BLOCKS_OF_STAGES) for block in range(count)]
    for number, block in enumerate(blocks):
        layer = f"block_{number}_" if number else "expanded_conv_"
        first = [("expand", "conv_pw")] if number else []
        last = "conv_pwl" if number else "conv_pw"
        for place, (ours, theirs) in enumerate([*first, ("depthwise", "conv_dw"), ("project", last)], start=1):
            kernel = tensors[f"{block}.{theirs}.weight"]
            arrays[layer + ours] = [_depthwise(kernel) if ours == "depthwise" else _kernel(kernel)]
            arrays[f"{layer}{ours}_BN"] = _statistics(tensors, f"{block}.bn{place}")
    return arrays


def _kernel(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`(out, in, height, width)` to `(height, width, in, out)`."""
    return weight.transpose(2, 3, 1, 0)


def _depthwise(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`(channels, 1, height, width)` to `(height, width, channels, 1)`."""
    return weight.transpose(2, 3, 0, 1)


def _statistics(tensors: dict[str, npt.NDArray[np.float32]], name: str) -> list[npt.NDArray[np.float32]]:
    return [tensors[f"{name}.{part}"] for part in _BATCH_NORM]


def check(path: Path, size: int = 96) -> float:
    """The largest difference between Keras' and timm's features on random images, relative to the largest feature."""
    import timm
    import torch

    images = np.random.default_rng(0).uniform(-1, 1, (16, size, size, 3)).astype(np.float32)
    found = features_model(size, path).predict(images, verbose=0)
    network = timm.create_model(ARCHITECTURE, num_classes=0, **timm_arguments(path)).eval()
    network.load_state_dict({name: torch.from_numpy(value) for name, value in load_file(path).items()})
    with torch.inference_mode():
        expected = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def main() -> None:
    """Print how far Keras' features are from timm's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--check", action="store_true", required=True)
    difference = check(weights_file(parser.parse_args().weights))
    print(f"largest relative difference of a feature: {difference:.1e} (allowed: {_TOLERANCE:.0e})")
    if difference > _TOLERANCE:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
