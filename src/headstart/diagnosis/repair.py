"""The repair: the smallest change that takes away the proved causes, as a recipe and as the lines of PyTorch to change."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from headstart.analysis.diagnosis import Finding
from headstart.diagnosis.arrival import Arrival, Standardised
from headstart.diagnosis.look_pixels import suitable_size
from headstart.models.backbones import Backbone, made_for_small_images
from headstart.records import Preprocessing, Recipe
from headstart.study.resolving import interpolation_at

_STANDARDISED = {
    "image": "(image - image.mean()) / image.std()",
    "channel": "(image - image.mean((-2, -1), keepdim=True)) / image.std((-2, -1), keepdim=True)",
}

_STANDARDISED_IN_KERAS = {
    "image": "lambda images: (images - keras.ops.mean(images, (1, 2, 3), keepdims=True)) / keras.ops.std(images, (1, 2, 3), keepdims=True)",
    "channel": "lambda images: (images - keras.ops.mean(images, (1, 2), keepdims=True)) / keras.ops.std(images, (1, 2), keepdims=True)",
}


@dataclass(frozen=True)
class Change:
    """One change: for which cause, its code (`diagnosis_repair.<code>` in the report's texts), and the values of its text."""

    cause: int
    code: str
    values: Mapping[str, Any]


def repaired_preprocessing(
    arrival: Arrival,
    contract: Preprocessing | None,
    published: Backbone | None,
    canvas: int,
    native: int,
    suspected: Iterable[int],
) -> Preprocessing:
    """The pixels as they should arrive: what is suspected follows the contract, the rest stays as it is."""
    causes = set(suspected)
    ours = arrival.preprocessing()
    right = contract or ours
    size = suitable_size(canvas, native) if 1 in causes else arrival.size
    interpolation = ours.interpolation
    if causes & {1, 2, 7}:
        own = published.preprocessing.interpolation if published is not None else "bilinear"
        interpolation = interpolation_at(size, canvas, own)
    scaled = right if causes & {3, 4} else ours
    order = right.channel_order if 5 in causes else ours.channel_order
    return Preprocessing(size, interpolation, scaled.mean, scaled.std, order)


def repaired_recipe(recipe: Recipe, preprocessing: Preprocessing, proved: Iterable[int]) -> Recipe:
    """The recipe without its proved faults; everything else as its owner wrote it."""
    causes = set(proved)
    changes: dict[str, Any] = {"name": f"{recipe.name}-repaired"}
    if causes & {1, 2, 3, 4, 5, 7}:
        changes |= {"preprocessing": preprocessing, "input_size": preprocessing.input_size}
    if 21 in causes:
        changes |= {"head": "convex"}
    return recipe.with_changes(**changes)


def list_changes(
    proved: Iterable[Finding], preprocessing: Preprocessing | None, standardised: Standardised = "none"
) -> list[Change]:
    """What to change for each proved cause, in the order of their weight.

    Args:
        proved: the causes.
        preprocessing: how the pixels should arrive; `None` where no network is there, and none of their causes can be proved.
        standardised: whether each image is standardised first.
    """
    size, smooth, contract = dict[str, Any](), dict[str, Any](), dict[str, Any]()
    if preprocessing is not None:
        smooth = {"interpolation": preprocessing.interpolation}
        size = {"size": preprocessing.input_size, "interpolation": preprocessing.interpolation}
        contract = {"mean": _rounded(preprocessing.mean), "std": _rounded(preprocessing.std)}
    changes: dict[int, tuple[str, dict[str, Any]]] = {
        1: ("resize", size),
        2: ("no-padding", {}),
        3: ("range", contract) if standardised == "none" else ("standardise", {}),
        4: ("scale-once", contract),
        5: ("channel-order", {}),
        6: ("one-preprocessing", {}),
        7: ("interpolation", smooth),
        8: ("eval-mode", {}),
        9: ("restore-buffers", {}),
        10: ("re-estimate-batch-norm", {}),
        11: ("lower-rate", {}),
        12: ("rebuild-optimizer", {}),
        13: ("load-weights", {}),
        14: ("logits", {}),
        15: ("fix-order", {}),
        16: ("group-split", {}),
        17: ("three-way-split", {}),
        18: ("other-backbone", {}),
        19: ("augment-after-cache", {}),
        20: ("unfreeze", {}),
        21: ("longer-head", {}),
        22: ("regularize", {}),
        23: ("small-stem", {}),
    }
    return [Change(finding.cause, *changes[finding.cause]) for finding in proved]


def gray_channels(arrival: Arrival) -> int | None:
    """How many equal channels a network that is fed in gray takes, 1 or 3; `None` where it is fed in colour."""
    return arrival.channels if arrival.order == "gray" else None


def code_lines(
    causes: Iterable[int],
    preprocessing: Preprocessing,
    published: Backbone | None,
    standardised: Standardised = "none",
    *,
    own_head: bool = False,
    gray: int | None = None,
) -> str:
    """The lines of PyTorch that a user would write instead; empty where no line of code repairs it.

    Args:
        causes: the proved ones.
        preprocessing, standardised: how the pixels should arrive.
        published: the backbone, where it is known.
        own_head: whether the head is a module beside the network.
        gray: channels that the network takes, where it is fed in gray (`gray_channels`); `None` where it is fed in colour.
    """
    chosen = set(causes)
    lines: list[str] = []
    if chosen & {1, 2, 3, 4, 5, 7}:
        size = preprocessing.input_size
        channels = 3 if gray is None else gray
        mean, std = (_rounded(values[:channels]) for values in (preprocessing.mean, preprocessing.std))
        mode = {"nearest": "NEAREST_EXACT"}.get(preprocessing.interpolation, preprocessing.interpolation.upper())
        lines += [
            "from torchvision.transforms import InterpolationMode, v2",
            "",
            "# What should arrive at the first layer: leave out what your network does itself.",
            "preprocess = v2.Compose([",
            "    v2.ToImage(),  # RGB, 0..255",
            *([f"    v2.Grayscale({gray}),"] if gray is not None else []),
            f"    v2.Resize(({size}, {size}), interpolation=InterpolationMode.{mode}, antialias=True),",
            *(["    v2.Lambda(lambda image: image.flip(-3)),  # BGR"] if preprocessing.channel_order == "BGR" else []),
            "    v2.ToDtype(torch.float32, scale=True),  # 0..1, once",
            f"    v2.Normalize(mean={mean}, std={std}),"
            if standardised == "none"
            else f"    v2.Lambda(lambda image: {_STANDARDISED[standardised]}),",
            "])",
        ]
    if chosen & {9, 13} and published is not None:
        small = made_for_small_images(published.architecture)
        file = published.path.name if published.path else f"{published.architecture}.safetensors"
        arguments = "".join(f", {name}={value!r}" for name, value in published.timm_arguments.items())
        lines += [
            "import timm",
            "from safetensors.torch import load_file",
            *(["import headstart.models.small32  # makes the architecture known to timm"] if small else []),
            "",
            f'model = timm.create_model("{published.architecture}", num_classes=0{arguments})',
            "# strict: a missing key is an error",
            f'model.load_state_dict(load_file("{file}"))',
        ]
    if chosen & {8, 9}:
        lines.append(
            "model.eval()  # before every epoch, after model.train() of the whole: frozen batch norm must not move"
        )
    if 21 in chosen:
        lines.append(
            "# train the head until its loss stands still, or fit it: sklearn.linear_model.LogisticRegression(max_iter=1000)"
        )
    if 12 in chosen:
        trained = "[*model.parameters(), *head.parameters()]" if own_head else "model.parameters()"
        lines.append(f"optimizer = torch.optim.AdamW([p for p in {trained} if p.requires_grad])  # after unfreezing")
    if 14 in chosen:
        lines.append("loss = torch.nn.CrossEntropyLoss()(logits, labels)  # logits, no softmax before it")
    if lines and re.search(r"\btorch\.", "\n".join(line for line in lines if "import" not in line)):
        lines.insert(0, "import torch")
    return "\n".join(lines)


def keras_lines(causes: Iterable[int], preprocessing: Preprocessing, standardised: Standardised = "none") -> str:
    """The lines of Keras that a user would write instead; empty where no line of code repairs it.

    Keras' `Normalization` gives `(x - mean) / sqrt(variance)`: with pixels 0..255 both are those of the contract times 255.
    """
    chosen = set(causes)
    lines: list[str] = []
    if chosen & {1, 2, 3, 4, 5, 7}:
        size = preprocessing.input_size
        mean = _rounded(255 * value for value in preprocessing.mean)
        variance = _rounded((255 * value) ** 2 for value in preprocessing.std)
        lines += [
            "inputs = keras.Input((None, None, 3))  # RGB, 0..255",
            f'x = keras.layers.Resizing({size}, {size}, interpolation="{preprocessing.interpolation}", antialias=True)(inputs)',
            *(
                ["x = keras.layers.Lambda(lambda images: images[..., ::-1])(x)  # BGR"]
                if preprocessing.channel_order == "BGR"
                else []
            ),
            f"x = keras.layers.Normalization(mean={mean}, variance={variance})(x)  # the only scaling"
            if standardised == "none"
            else f"x = keras.layers.Lambda({_STANDARDISED_IN_KERAS[standardised]})(x)",
            "features = backbone(x, training=False)  # frozen batch norm stays as it is",
        ]
    elif 8 in chosen:
        lines.append("features = backbone(x, training=False)  # frozen batch norm stays as it is")
    if 21 in chosen:
        lines.append(
            "model.fit(..., epochs=100)  # until the loss stands still; keras.callbacks.ReduceLROnPlateau helps"
        )
    return "\n".join(["import keras", "", *lines] if any("keras." in line for line in lines) else lines)


def to_toml(recipe: Recipe) -> str:
    """A recipe as `headstart compare --recipe FILE` reads it."""
    plain: list[str] = []
    tables: list[str] = []
    defaults = asdict(Recipe(name=recipe.name, kind=recipe.kind))
    for key, value in asdict(recipe).items():
        if value is None or key in ("weights_sha256", "callbacks"):
            continue
        if isinstance(value, dict):
            tables += ["", f"[{key}]", *(f"{inner} = {_toml(one)}" for inner, one in value.items())]
        elif value != defaults[key] or key in ("name", "kind"):
            plain.append(f"{key} = {_toml(value)}")
    return "\n".join([*plain, *tables, ""])


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)


def _rounded(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
