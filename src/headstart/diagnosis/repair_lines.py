"""The repair as the lines of PyTorch and of Keras that a user would write instead."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headstart.diagnosis.arrival import Arrival, Standardised
from headstart.models.backbones import Backbone, made_for_small_images
from headstart.records import Preprocessing

_OF_THE_PREPROCESSING = {1, 2, 3, 4, 5, 7}
_MOST_NAMED = 100  # chosen: classes whose order is written out

_STANDARDISED = {
    "image": "(image - image.mean()) / image.std()",
    "channel": "(image - image.mean((-2, -1), keepdim=True)) / image.std((-2, -1), keepdim=True)",
}

_STANDARDISED_IN_KERAS = {
    "image": "lambda images: (images - keras.ops.mean(images, (1, 2, 3), keepdims=True)) / keras.ops.std(images, (1, 2, 3), keepdims=True)",
    "channel": "lambda images: (images - keras.ops.mean(images, (1, 2), keepdims=True)) / keras.ops.std(images, (1, 2), keepdims=True)",
}


@dataclass(frozen=True)
class Own:
    """How somebody's own network is made, as far as its lines of code need it.

    Attributes:
        head_apart: whether the head is a module beside the network.
        kept_order: whether it is not the network's classes that are in another order (15), but those of predictions that were kept.
    """

    head_apart: bool = False
    kept_order: bool = False


def gray_channels(arrival: Arrival) -> int | None:
    """How many equal channels a network that is fed in gray takes, 1 or 3; `None` where it is fed in colour."""
    return arrival.channels if arrival.order == "gray" else None


def code_lines(
    causes: Iterable[int],
    preprocessing: Preprocessing | None,
    published: Backbone | None = None,
    standardised: Standardised = "none",
    *,
    own: Own | None = None,
    gray: int | None = None,
    crop: float = 1.0,
    meant: Sequence[int] | None = None,
    frozen: bool = False,
) -> str:
    """The lines of PyTorch that a user would write instead; empty where no line of code repairs it.

    Args:
        causes: the proved ones.
        preprocessing, standardised: how the pixels should arrive; `None` where no network is there.
        published: the backbone, where it is known.
        own: how somebody's own network is made; `None` for a recipe of ours.
        gray: channels that the network takes, where it is fed in gray (`gray_channels`); `None` where it is fed in colour.
        crop: share of the image's side that is seen, where its middle is cut out.
        meant: for each class that is predicted the one that it means, where their order is another (15).
        frozen: whether a recipe's fine-tuning (11) is repaired by none at all.
    """
    chosen = set(causes)
    lines: list[str] = []
    if chosen & _OF_THE_PREPROCESSING and preprocessing is not None:
        lines += _preprocess(preprocessing, standardised, gray, crop)
    if published is not None and (chosen & {9, 13} or (11 in chosen and own is not None)):
        lines += _published_weights(published)
    if 10 in chosen:
        lines += [
            "# batch norm's statistics, estimated anew: images of train, in batches, preprocessed as for the evaluation",
            "torch.optim.swa_utils.update_bn(train_batches, model)",
        ]
    if chosen & {8, 9, 10}:
        lines.append(
            "model.eval()  # before every epoch, after model.train() of the whole: frozen batch norm must not move"
        )
    if 21 in chosen:
        lines.append(
            "# train the head until its loss stands still, or fit it: sklearn.linear_model.LogisticRegression(max_iter=1000)"
        )
    if 22 in chosen:
        lines.append(
            "# fit the head with a penalty whose strength is chosen on val: sklearn.linear_model.LogisticRegressionCV(max_iter=1000)"
        )
    if 11 in chosen:
        lines += _fine_tuning(frozen=frozen)
    elif 12 in chosen:
        apart = own is not None and own.head_apart
        trained = "[*model.parameters(), *head.parameters()]" if apart else "model.parameters()"
        lines.append(f"optimizer = torch.optim.AdamW([p for p in {trained} if p.requires_grad])  # after unfreezing")
    if 14 in chosen:
        lines.append("loss = torch.nn.CrossEntropyLoss()(logits, labels)  # logits, no softmax before it")
    if 15 in chosen and meant is not None and len(meant) <= _MOST_NAMED:
        whose = "that you kept" if own is None or own.kept_order else "that the network gives"
        lines += [
            f"meant = torch.tensor({list(map(int, meant))})",
            f"named = meant[predicted]  # predicted: the class numbers {whose}; store class names with the weights",
        ]
    if 16 in chosen:
        lines += [
            "import csv",
            "import hashlib",
            "from sklearn.model_selection import GroupShuffleSplit",
            "",
            "# images (N, H, W, 3) uint8, names: theirs as in copies.csv. Equal pixels, then the pairs of that file, stay on one side",
            "groups = {name: hashlib.sha256(image.tobytes()).hexdigest() for name, image in zip(names, images)}",
            'with open("copies.csv", newline="", encoding="utf-8") as file:',
            "    for pair in csv.DictReader(file):",
            '        kept, joined = groups[pair["test_image"]], groups[pair["training_image"]]',
            "        groups = {name: kept if group == joined else group for name, group in groups.items()}",
            "split = GroupShuffleSplit(1, test_size=0.2, random_state=0).split(images, groups=list(groups.values()))",
            "train, test = next(split)",
        ]
    if lines and re.search(r"\btorch\.", "\n".join(line for line in lines if "import" not in line)):
        lines.insert(0, "import torch")
    return "\n".join(lines)


def keras_lines(
    causes: Iterable[int], preprocessing: Preprocessing, standardised: Standardised = "none", *, frozen: bool = False
) -> str:
    """The lines of Keras that a user would write instead of a recipe of ours; empty where no line of code repairs it.

    The arguments are those of `code_lines`. Keras' `Normalization` gives `(x - mean) / sqrt(variance)`: with pixels 0..255 both are
    those of the contract times 255.
    """
    chosen = set(causes)
    lines: list[str] = []
    if chosen & _OF_THE_PREPROCESSING:
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
    if 11 in chosen and frozen:
        lines.append("backbone.trainable = False  # the head alone is trained")
    elif 11 in chosen:
        lines += [
            "# first with backbone.trainable = False, to the end; then all of it, much more slowly",
            "backbone.trainable = True",
            "model.compile(keras.optimizers.Adam(1e-5), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))",
        ]
    if 22 in chosen:
        lines.append(
            "head = keras.layers.Dense(classes, kernel_regularizer=keras.regularizers.L2(1e-3))  # its strength chosen on val"
        )
    if 21 in chosen:
        lines.append(
            "model.fit(..., epochs=100)  # until the loss stands still; keras.callbacks.ReduceLROnPlateau helps"
        )
    return "\n".join(["import keras", "", *lines] if any("keras." in line for line in lines) else lines)


def _fine_tuning(*, frozen: bool) -> list[str]:
    """The head first, then the network more slowly; or the head alone."""
    if frozen:
        return ["model.requires_grad_(False)  # model: the network before the head, which alone is trained"]
    return [
        "# head: your last layer, new. First the head alone, to its end; then both, the network much more slowly",
        'groups = [{"params": head.parameters(), "lr": 1e-3}, {"params": model.parameters(), "lr": 1e-5}]',
        "optimizer = torch.optim.AdamW(groups)",
    ]


def _preprocess(preprocessing: Preprocessing, standardised: Standardised, gray: int | None, crop: float) -> list[str]:
    """A preprocessing of torchvision's from an image to what should arrive."""
    size = preprocessing.input_size
    whole = round(size / crop)  # as diagnosis/pipeline.py measures it
    channels = 3 if gray is None else gray
    mean, std = (_rounded(values[:channels]) for values in (preprocessing.mean, preprocessing.std))
    mode = {"nearest": "NEAREST_EXACT"}.get(preprocessing.interpolation, preprocessing.interpolation.upper())
    return [
        "from torchvision.transforms import InterpolationMode, v2",
        "",
        "# What should arrive at the first layer: leave out what your network does itself.",
        "preprocess = v2.Compose([",
        "    v2.ToImage(),  # RGB, 0..255",
        *([f"    v2.Grayscale({gray}),"] if gray is not None else []),
        f"    v2.Resize(({whole}, {whole}), interpolation=InterpolationMode.{mode}, antialias=True),",
        *([f"    v2.CenterCrop({size}),"] if whole != size else []),
        *(["    v2.Lambda(lambda image: image.flip(-3)),  # BGR"] if preprocessing.channel_order == "BGR" else []),
        "    v2.ToDtype(torch.float32, scale=True),  # 0..1, once",
        f"    v2.Normalize(mean={mean}, std={std}),"
        if standardised == "none"
        else f"    v2.Lambda(lambda image: {_STANDARDISED[standardised]}),",
        "])",
    ]


def _published_weights(published: Backbone) -> list[str]:
    """The network with its published weights, loaded strictly."""
    small = made_for_small_images(published.architecture)
    file = published.path.name if published.path else f"{published.architecture}.safetensors"
    arguments = "".join(f", {name}={value!r}" for name, value in published.timm_arguments.items())
    return [
        "import timm",
        "from safetensors.torch import load_file",
        *(["import headstart.models.small32  # makes the architecture known to timm"] if small else []),
        "",
        f'model = timm.create_model("{published.architecture}", num_classes=0{arguments})',
        "# strict: a missing key is an error",
        f'model.load_state_dict(load_file("{file}"))',
    ]


def _rounded(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
