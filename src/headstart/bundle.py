"""A bundle: a trained network with its preprocessing, canvas and class names, so that it can be used away from its run.

Two files in a trial's folder: `model.safetensors` (every weight) and `bundle.json` (how to build the network, which pixels
it expects, what its outputs are called). Images go through the same decoding, canvas and `Preprocessing` as in training.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from headstart.data.decode import decode_to_canvas
from headstart.data.preprocessing import apply_preprocessing
from headstart.errors import RunError
from headstart.files import read_json, sha256_of_file, write_json, written_atomically
from headstart.models.network import NetworkSpec, build_network
from headstart.models.weights import load_strictly
from headstart.records import Images, Preprocessing

BUNDLE_VERSION = 1
_BATCH = 64


@dataclass(frozen=True)
class Prediction:
    """One image's answer: its path, the class, the probability, and the probabilities of all classes in order."""

    path: str
    predicted: str
    probability: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Bundle:
    """A trained classifier ready for use.

    Attributes:
        network: in evaluation mode, on the CPU.
        preprocessing: between canvas and network.
        class_names: in the order of the outputs.
        canvas: side in pixels to which a decoded image is brought first.
        recipe: name of the recipe that made it.
    """

    network: nn.Module
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    canvas: int
    recipe: str

    def probabilities(self, images: Images) -> npt.NDArray[np.float32]:
        """Classify images that are already at the canvas's size.

        Args:
            images: `(N, canvas, canvas, 3) uint8`, RGB.

        Returns:
            `(N, classes) float32`, rows sum to 1.
        """
        rows = []
        with torch.inference_mode():
            for first in range(0, len(images), _BATCH):
                inputs = apply_preprocessing(images[first : first + _BATCH], self.preprocessing)
                rows.append(torch.softmax(self.network(inputs), dim=1).numpy())
        return np.concatenate(rows) if rows else np.zeros((0, len(self.class_names)), np.float32)

    def predict(self, paths: Sequence[Path]) -> list[Prediction]:
        """Classify image files.

        Raises:
            DataError: a file cannot be read as an image; the message says which and why.
        """
        images = np.stack([decode_to_canvas(path, self.canvas) for path in paths])
        answers = []
        for path, row in zip(paths, self.probabilities(images), strict=True):
            best = int(row.argmax())
            named = dict(zip(self.class_names, (float(value) for value in row), strict=True))
            answers.append(Prediction(str(path), self.class_names[best], float(row[best]), named))
        return answers


def save_bundle(
    folder: Path,
    network: nn.Module,
    spec: NetworkSpec,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    canvas: int,
    recipe: str,
) -> None:
    """Write a bundle's two files, `bundle.json` last."""
    weights = folder / "model.safetensors"
    state = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }
    with written_atomically(weights) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})
    write_json(
        folder / "bundle.json",
        {
            "bundle_version": BUNDLE_VERSION,
            "recipe": recipe,
            "network": asdict(spec),
            "preprocessing": asdict(preprocessing),
            "class_names": list(class_names),
            "canvas": canvas,
            "weights_sha256": sha256_of_file(weights),
        },
    )


def load_bundle(folder: Path) -> Bundle:
    """Load a bundle.

    Raises:
        RunError: a file is missing, damaged or of another version.
        WeightsError: the weights do not fit the network.
    """
    facts = read_json(folder / "bundle.json")
    if facts["bundle_version"] != BUNDLE_VERSION:
        raise RunError(f"{folder} has bundle version {facts['bundle_version']}; this headstart reads {BUNDLE_VERSION}.")
    weights = folder / "model.safetensors"
    if not weights.exists() or sha256_of_file(weights) != facts["weights_sha256"]:
        raise RunError(f"{weights} is missing or damaged. Delete {folder} and run the comparison again.")
    network = build_network(NetworkSpec(**facts["network"]))
    try:
        load_strictly(network, load_file(weights), str(weights))
    except SafetensorError as error:
        raise RunError(f"{weights} cannot be read ({error}). Delete {folder} and run the comparison again.") from error
    settings = facts["preprocessing"]
    return Bundle(
        network=network.eval(),
        preprocessing=Preprocessing(**{**settings, "mean": tuple(settings["mean"]), "std": tuple(settings["std"])}),
        class_names=tuple(facts["class_names"]),
        canvas=facts["canvas"],
        recipe=facts["recipe"],
    )
