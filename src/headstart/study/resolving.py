"""A recipe meets data and backbone: everything that it leaves open is filled in, and what cannot be done is refused."""

from dataclasses import dataclass, replace

from headstart.data.audit import channel_statistics
from headstart.errors import UsageError
from headstart.models.backbones import Backbone, default_input_size
from headstart.models.metadata import Interpolation
from headstart.records import ImageSet, Indices, Preprocessing, Recipe, Split
from headstart.study.presets import trains_by_epochs
from headstart.training.steps import SMALLEST_MICRO_BATCH

_SCRATCH_LARGEST_INPUT = 96  # chosen: beyond it the simple CNN only becomes slower
_ENLARGED = 2
"""Images enlarged this much are interpolated bicubically: bilinear blurs them (docs/log.md: 1.7 points on CIFAR-10)."""


@dataclass(frozen=True)
class Overrides:
    """What the user set for every recipe that it applies to; `None` leaves the recipe's own value."""

    input_size: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    augmentation: str | None = None
    callbacks: tuple[str, ...] = ()


def resolve_recipe(
    recipe: Recipe, images: ImageSet, split: Split, backbone: Backbone | None, overrides: Overrides
) -> Recipe:
    """Fill in everything that the data and the backbone decide.

    Args:
        recipe: as the user or a preset wrote it.
        images, split: the channel statistics of train become the scratch network's preprocessing.
        backbone: of the recipe, where it has one.
        overrides: the user's settings; a preprocessing that the recipe itself fixes keeps its range.

    Returns:
        A recipe without open fields.

    Raises:
        UsageError: see `require_possible`.
    """
    require_possible(recipe, images, backbone, overrides)
    changes: dict[str, object] = {}
    if backbone is not None:
        changes["backbone"] = backbone.architecture  # a weight file's path must not decide what a trial is
    if trains_by_epochs(recipe):
        changes["epochs"] = overrides.epochs or recipe.epochs
    changes["batch_size"] = overrides.batch_size or recipe.batch_size
    if overrides.augmentation is not None and (recipe.kind == "scratch" or recipe.augmentation != "none"):
        changes["augmentation"] = overrides.augmentation
    wanted = _wanted_size(recipe, overrides)
    sized = recipe.with_changes(input_size=wanted)
    preprocessing = recipe.preprocessing or _default_preprocessing(sized, images, split, backbone)
    if wanted:
        preprocessing = replace(preprocessing, input_size=wanted)
    changes |= {
        "preprocessing": preprocessing,
        "input_size": preprocessing.input_size,
        "weights_sha256": backbone.weights_sha256 if backbone and recipe.uses_pretrained_weights else None,
        "callbacks": overrides.callbacks if trains_by_epochs(recipe) else (),
    }
    return recipe.with_changes(**changes)


def require_possible(recipe: Recipe, images: ImageSet, backbone: Backbone | None, overrides: Overrides) -> None:
    """Refuse a recipe that cannot be completed; no pixel is read.

    Raises:
        UsageError: the backbone takes one size only, and another is asked for.
        UsageError: it trains by epochs, and neither it nor the user says how many.
        UsageError: its momentum or its largest shift is no share, or its micro-batch has too few images.
    """
    if trains_by_epochs(recipe) and not overrides.epochs:
        _require_epochs(recipe)
    if not 0 <= recipe.momentum < 1:
        raise UsageError(
            f"The recipe {recipe.name!r} has momentum = {recipe.momentum:g}; it is at least 0 and below 1."
        )
    if not 0 < recipe.max_shift < 1:
        raise UsageError(
            f"The recipe {recipe.name!r} has max_shift = {recipe.max_shift:g}; it is a share of the image's side, above 0 and below 1."
        )
    if 0 != recipe.micro_batch < SMALLEST_MICRO_BATCH:
        raise UsageError(
            f"The recipe {recipe.name!r} has micro_batch = {recipe.micro_batch}; it is at least {SMALLEST_MICRO_BATCH} images, or 0 for "
            "the whole batch at once."
        )
    if backbone is not None and backbone.fixed_size:
        size = _wanted_size(recipe, overrides)
        if not size and recipe.preprocessing is not None:
            size = recipe.preprocessing.input_size
        _require_own_size(recipe, backbone, size or backbone_preprocessing(backbone, images.canvas).input_size)


def _wanted_size(recipe: Recipe, overrides: Overrides) -> int | None:
    return overrides.input_size or recipe.input_size


def _require_own_size(recipe: Recipe, backbone: Backbone, size: int) -> None:
    if size != backbone.native_size:
        raise UsageError(
            f"Recipe {recipe.name!r} asks for images of {size} px, but {backbone.architecture} takes {backbone.native_size} px "
            "only. Leave out --input-size (or the input size and the preprocessing in the recipe), or name another --backbone."
        )


def _require_epochs(recipe: Recipe) -> None:
    if recipe.epochs < 1:
        raise UsageError(
            f"The recipe {recipe.name!r} ({recipe.kind}) trains by epochs and does not say how many. "
            "Give it `epochs`, such as epochs = 20, or say it for all recipes with --epochs 20."
        )


def _default_preprocessing(recipe: Recipe, images: ImageSet, split: Split, backbone: Backbone | None) -> Preprocessing:
    if backbone is not None:
        return backbone_preprocessing(backbone, images.canvas, recipe.input_size)
    size = min(images.canvas, _SCRATCH_LARGEST_INPUT)
    if recipe.kind == "majority":
        return Preprocessing(size)
    mean, std = channel_contract(images, split.train)
    return Preprocessing(size, mean=mean, std=std)


def backbone_preprocessing(backbone: Backbone, canvas: int, input_size: int | None = None) -> Preprocessing:
    """What a backbone sees of images of this canvas: its own contract, at the size that suits both.

    Args:
        backbone: its preprocessing is kept, but for size and interpolation.
        canvas: side of the kept images, in pixels.
        input_size: the user's choice; `None` takes `default_input_size`, or the only size that the backbone takes.
    """
    default = backbone.native_size if backbone.fixed_size else default_input_size(canvas, backbone.native_size)
    size = input_size or default
    interpolation = interpolation_at(size, canvas, backbone.preprocessing.interpolation)
    return replace(backbone.preprocessing, input_size=size, interpolation=interpolation)


def interpolation_at(size: int, canvas: int, own: Interpolation) -> Interpolation:
    """How images of this canvas are brought to a size: bicubic where they are enlarged at least twice, otherwise a backbone's own way."""
    return "bicubic" if size >= _ENLARGED * canvas else own


def channel_contract(images: ImageSet, train: Indices) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation of each channel over train, for pixels scaled to 0..1, rounded to four digits.

    Rounded so that the recipe reads well and its identity does not hang on the last bit of a sum.
    """
    mean, deviation = channel_statistics(images.images, train)
    red, green, blue = (round(float(value), 4) for value in mean / 255)
    # A channel that never varies must not be divided by zero.
    std_red, std_green, std_blue = (max(round(float(value), 4), 1e-4) for value in deviation / 255)
    return (red, green, blue), (std_red, std_green, std_blue)
