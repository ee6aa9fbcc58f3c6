"""The repair: the smallest change that takes away the proved causes, in words and as a recipe."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from headstart.analysis.diagnosis import Finding
from headstart.diagnosis.arrival import Arrival, Standardised
from headstart.diagnosis.look_pixels import suitable_size
from headstart.models.backbones import Backbone
from headstart.records import Preprocessing, Recipe
from headstart.study.resolving import interpolation_at

_GENTLER = 10  # chosen: the smaller end of "ten to a hundred times smaller", which the catalogue's sources advise


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
    if causes & {21, 22}:
        changes |= {"head": "convex"}
    if 11 in causes:
        changes |= {"learning_rate": recipe.learning_rate / _GENTLER}
    return recipe.with_changes(**changes)


def list_changes(
    proved: Iterable[Finding],
    preprocessing: Preprocessing | None,
    standardised: Standardised = "none",
    *,
    ours: bool = False,
    frozen: bool = False,
) -> list[Change]:
    """What to change for each proved cause, in the order of their weight.

    Args:
        proved: the causes.
        preprocessing: how the pixels should arrive; `None` where no network is there, and none of their causes can be proved.
        standardised: whether each image is standardised first.
        ours: whether it is a recipe of ours that is repaired.
        frozen: whether its repair is a head on the frozen network.
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
        11: (("freeze" if frozen else "lower-rate") if ours else "start-again", {}),
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
