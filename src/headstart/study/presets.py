"""Recipes by name: the default contest, and the class exercise as it was."""

import itertools
import tomllib
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from headstart.data.splits import TEST
from headstart.errors import UsageError
from headstart.models.backbones import made_for_small_images
from headstart.models.small32 import LARGEST_IMAGE
from headstart.records import Augmentation, ImageSet, Preprocessing, Recipe

DEFAULT_BACKBONE = "mobilenetv2_100"
"""The exercise's network: small, quick, and known to everybody."""

SMALL_BACKBONE = "small32_m"
"""Of the backbones for small images that come with the package the one that is taken by default."""

CLASSROOM_INPUT = 32  # the exercise fed the network CIFAR-10's own 32 px

_FINE_TUNED_IMAGES, _FEWEST_EPOCHS, _MOST_EPOCHS = 50_000, 6, 20  # chosen on training images of CIFAR-10 (docs/log.md)

_FAST_IMAGES, _FAST_EPOCHS = 200_000, (8, 40)  # chosen: see `fast_recipe`
# Batch size and momentum, each from so many images on: 256 and the momenta measured (docs/log.md), the other sizes chosen. Few passes over
# many images want less momentum, many passes over few want more.
_FAST_BATCHES = ((20_000, 256, 0.6), (3_000, 128, 0.9), (0, 64, 0.9))

PRESETS = ("default", "classroom")


def default_backbones(images: ImageSet) -> list[str]:
    """The backbones of the default contest: small images have one made for them, and it needs no download."""
    return [SMALL_BACKBONE, DEFAULT_BACKBONE] if images.canvas <= LARGEST_IMAGE else [DEFAULT_BACKBONE]


def default_recipes(images: ImageSet, backbones: list[str]) -> list[Recipe]:
    """The default contest: two networks from scratch, each backbone probed and fine-tuned, and the controls.

    Args:
        images: decide which augmentation is safe.
        backbones: architecture names or weight files.
    """
    recipes = [fast_recipe(images), scratch_recipe(images)]
    shown = shown_names(backbones)
    for backbone in backbones:
        recipes += [probe_recipe(backbone, shown[backbone]), fine_tune_recipe(backbone, images, shown[backbone])]
    only = len(backbones) == 1
    recipes += [random_features_recipe(backbone, only, shown[backbone]) for backbone in backbones]
    return [*recipes, Recipe(name="majority", kind="majority")]


def shown_names(backbones: list[str]) -> dict[str, str]:
    """What each backbone is called in the names of its recipes, so that no two are called alike.

    A weight file is called by its name without folder and ending; where another backbone is called so, with `-file` after it,
    and `-file2`, `-file3` where more are.

    Args:
        backbones: architecture names or weight files.
    """
    shown = {name: name for name in backbones if not name.endswith(".safetensors")}
    for path in backbones:
        if path not in shown:
            stem = _shown(path)
            names = itertools.chain([stem, f"{stem}-file"], (f"{stem}-file{number}" for number in itertools.count(2)))
            shown[path] = next(name for name in names if name not in shown.values())
    return shown


def scratch_recipe(images: ImageSet) -> Recipe:
    """The simple CNN with what a fair opponent deserves: small-image stem, augmentation, a schedule that ends.

    Its rate, its schedule and its number of epochs are chosen, not tuned.
    """
    return Recipe(
        name="cnn",
        kind="scratch",
        augmentation=_safe_augmentation(images),
        epochs=20,
        batch_size=64,
        optimizer="adamw",
        learning_rate=3e-3,
        weight_decay=1e-2,
        schedule="one-cycle",
        label_smoothing=0.05,
        width=32,
        dropout=0.2,
    )


def fast_recipe(images: ImageSet, count: int | None = None) -> Recipe:
    """The network from scratch that gets furthest in little time; what transfer has to beat.

    Rates, momentum, batch and smoothing were chosen on CIFAR-10's val part (docs/log.md). The fewer images, the more passes and the
    smaller the batches: a thousand images still make a few hundred steps.

    Args:
        images: decide whether mirrors are safe, and by their number epochs and batch size.
        count: decides these in their place, for training on so many of them.
    """
    count = _images_but_test(images) if count is None else count
    batch_size, momentum = next((size, share) for fewest, size, share in _FAST_BATCHES if count >= fewest)
    return Recipe(
        name="fast",
        kind="scratch",
        network="fast",
        augmentation="shift-alternate" if images.mirror_safe else "shift",
        epochs=min(max(round(_FAST_IMAGES / count), _FAST_EPOCHS[0]), _FAST_EPOCHS[1]),
        batch_size=batch_size,
        optimizer="muon",
        learning_rate=0.1,
        momentum=momentum,
        weight_decay=0.02,
        schedule="triangular",
        label_smoothing=0.2,
        weight_averaging=0.99,
        width=32,
    )


def probe_recipe(backbone: str, shown: str | None = None) -> Recipe:
    """A linear head, fitted to convergence, on the backbone's frozen features.

    Here and below, `shown` is the backbone's name in the recipe's; see `shown_names`.
    """
    return Recipe(name=f"{shown or _shown(backbone)}-probe", kind="probe", backbone=backbone, head="convex")


def fine_tune_recipe(backbone: str, images: ImageSet, shown: str | None = None) -> Recipe:
    """The probe's head first, then the last stages with a small rate, smaller the further from the head.

    A backbone made for small images is cheap enough to train whole, with augmentation; it then looks at images as it saw them
    (`Looks`). Its rate and averaging were chosen on training images of CIFAR-10 (docs/log.md).
    """
    name = f"{shown or _shown(backbone)}-finetune"
    if made_for_small_images(backbone):
        return Recipe(
            name=name,
            kind="finetune",
            backbone=backbone,
            unfreeze="all",
            augmentation=_safe_augmentation(images),
            epochs=small_fine_tune_epochs(_images_but_test(images)),
            batch_size=64,
            optimizer="muon",
            learning_rate=0.005,
            weight_decay=1e-2,
            schedule="one-cycle",
            layer_decay=0.9,
            label_smoothing=0.05,
            weight_averaging=0.98,
        )
    return Recipe(
        name=name,
        kind="finetune",
        backbone=backbone,
        unfreeze="last",
        epochs=5,
        batch_size=64,
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=1e-2,
        schedule="one-cycle",
        layer_decay=0.9,
    )


def small_fine_tune_epochs(images: int) -> int:
    """Epochs of fine-tuning a small backbone: the fewer images, the more passes, so that about fifty thousand images are seen."""
    return min(max(round(_FINE_TUNED_IMAGES / images), _FEWEST_EPOCHS), _MOST_EPOCHS)


def random_features_recipe(backbone: str, only: bool = True, shown: str | None = None) -> Recipe:
    """The control: the same probe on the same architecture with random weights."""
    name = "random-features" if only else f"random-features-{shown or _shown(backbone)}"
    return Recipe(name=name, kind="random-features", backbone=backbone, head="convex")


def classroom_recipes(backbone: str = DEFAULT_BACKBONE, shown: str | None = None) -> list[Recipe]:
    """The exercise as it was, its mistake included.

    The network sees 32 px and pixels scaled to 0..1, where its ImageNet weights expect 224 px and -1..1: that is how the
    exercise came to 28.60%. Both networks train with Adam, batch 64, early stopping, and a rate that falls on a plateau.
    """
    raw_pixels = Preprocessing(CLASSROOM_INPUT)
    taught = Recipe(
        name="classroom-cnn",
        kind="scratch",
        preprocessing=raw_pixels,
        epochs=30,
        batch_size=64,
        optimizer="adam",
        learning_rate=1e-3,
        early_stopping_patience=5,
        reduce_on_plateau_patience=3,
        width=8,
    )
    return [
        taught,
        taught.with_changes(
            name=f"classroom-{shown or _shown(backbone)}", kind="probe", backbone=backbone, head="gradient"
        ),
        random_features_recipe(backbone).with_changes(preprocessing=raw_pixels),
        Recipe(name="majority", kind="majority"),
    ]


def named_recipe(name: str, images: ImageSet, backbones: list[str]) -> Recipe:
    """Find a recipe by its name, or read it from a TOML file.

    Args:
        name: one of the default or classroom recipes' names, or the path of a `.toml` file.
        images, backbones: as for `default_recipes`.

    Raises:
        UsageError: no such recipe; the message lists those there are.
    """
    if name.endswith(".toml"):
        return read_recipe(Path(name))
    classroom = [recipe for path, shown in shown_names(backbones).items() for recipe in classroom_recipes(path, shown)]
    known = {recipe.name: recipe for recipe in [*default_recipes(images, backbones), *classroom]}
    if name not in known:
        raise UsageError(f"There is no recipe {name!r}. Known here: {', '.join(known)}, or the path of a .toml file.")
    return known[name]


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from a TOML file; every field of `Recipe` may be set, `name` and `kind` must be.

    What trains by epochs needs `epochs`, too, unless the user gives them (`resolve_recipe`).

    Raises:
        UsageError: the file is missing or not TOML, or a field is unknown or of the wrong type; the message names it.
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The recipe {path} cannot be read: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"The recipe {path} is not valid TOML: {error}.") from error
    unknown = sorted(set(settings) - set(Recipe.__dataclass_fields__))
    if unknown:
        fields = ", ".join(Recipe.__dataclass_fields__)
        raise UsageError(f"The recipe {path} has unknown fields: {', '.join(unknown)}. Known are {fields}.")
    try:
        recipe = TypeAdapter(Recipe).validate_python(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"The recipe {path} is wrong at {where!r}: {first['msg']}.") from error
    if recipe.epochs < 0:
        raise UsageError(f"The recipe {path} is wrong at 'epochs': it is {recipe.epochs}; expected at least 1.")
    return recipe


def trains_by_epochs(recipe: Recipe) -> bool:
    """Whether the engine trains it, so that it needs a number of epochs; a head fitted to convergence has none."""
    return recipe.kind in ("scratch", "finetune") or (recipe.kind != "majority" and recipe.head == "gradient")


def _images_but_test(images: ImageSet) -> int:
    """Images that the data does not keep for test, val among them; what is only drawn for test later still counts."""
    if images.official_part is None:
        return len(images.labels)
    return int((images.official_part != TEST).sum())


def _safe_augmentation(images: ImageSet) -> Augmentation:
    # A mirrored digit is another digit: mirrors only where the data is known to allow them.
    return "shift-flip" if images.mirror_safe else "shift"


def _shown(backbone: str) -> str:
    """A backbone's name in the names of its recipes: of a weight file, its name without folder and ending."""
    return Path(backbone).stem if backbone.endswith(".safetensors") else backbone
