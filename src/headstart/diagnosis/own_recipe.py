"""A repaired pipeline as a recipe, where one says exactly what was measured, and a name by which its weights are found again."""

from pathlib import Path

from headstart.diagnosis.examination import Examination
from headstart.diagnosis.look_network import has_layers_of_its_own
from headstart.diagnosis.published import STATISTICS, close
from headstart.diagnosis.subject import Subject
from headstart.errors import WeightsError
from headstart.models.backbones import Backbone
from headstart.models.weights import find_weights_file, weights_folders
from headstart.records import Recipe

_SHOWN = 12  # digits of a hash in a message
_NOT_IN_A_RECIPE = {
    2,
    8,
    9,
    13,
}  # a frame, training mode, statistics and weights of one's own: left in, no recipe has them


def findable_name(backbone: Backbone, weights_dir: Path | None) -> str:
    """The architecture's name, or the path of the weight file where that name finds other weights.

    Args:
        backbone: that was diagnosed.
        weights_dir: searched first, as the command that trains the recipe does.
    """
    if backbone.path is None:
        return backbone.architecture
    by_name = find_weights_file(backbone.architecture, weights_folders(weights_dir))
    same = by_name is not None and by_name.path.resolve() == backbone.path.resolve()
    return backbone.architecture if same else str(backbone.path.resolve())


def require_same_weights(recipe: Recipe, backbone: Backbone) -> None:
    """Refuse to diagnose a recipe that was trained with some weights by means of others.

    Args:
        recipe: one that a run resolved has the hash of its weights; others have none, and take what is found.
        backbone: what its name finds here.

    Raises:
        WeightsError: the hashes differ.
    """
    if recipe.weights_sha256 in (None, backbone.weights_sha256):
        return
    where = backbone.path if backbone.path is not None else backbone.source
    raise WeightsError(
        f"Recipe {recipe.name!r} was trained with other weights of {backbone.architecture} (SHA-256 "
        f"{str(recipe.weights_sha256)[:_SHOWN]}...) than those found here ({str(backbone.weights_sha256)[:_SHOWN]}..., {where}), so "
        "its failure cannot be looked into with these. Name the run's weight file with --backbone, or its folder with --weights-dir."
    )


def recipe_of_subject(subject: Subject, examination: Examination, weights_dir: Path | None) -> Recipe | None:
    """The repaired pipeline of somebody's own network as a recipe of ours: a probe on the published weights.

    Args:
        subject, examination: what was diagnosed.
        weights_dir: where published weights were looked for first.

    Returns:
        `None` where the accuracy after the repair is of something that no recipe can say: weights or layers of one's own, pixels that
        nobody understands, batch-norm statistics that were estimated anew (10), images cut out, standardised one by one, made gray or
        with channels in no usual order, or a fault of the network that is no more than suspected and so was left in.
    """
    if subject.published is None or examination.remade is None or not examination.remade.arrival.is_understood:
        return None
    found = {finding.cause: finding for finding in examination.findings}
    proved = {cause for cause, finding in found.items() if finding.status == "proved"}
    left_in = set(examination.factors) - proved
    repaired = examination.remade.repaired
    cut = examination.remade.arrival.crop != 1
    shuffled = examination.remade.arrival.shuffled is not None and not repaired.ordered
    own_pixels = cut or shuffled or repaired.standardised != "none" or found[5].code == "colour-thrown-away"
    if 10 in proved or left_in & _NOT_IN_A_RECIPE or own_pixels or not _as_published(subject, proved):
        return None
    return Recipe(
        name=f"{subject.published.architecture}-repaired",
        kind="probe",
        backbone=findable_name(subject.published, weights_dir),
        preprocessing=repaired.preprocessing,
        input_size=repaired.preprocessing.input_size,
    )


def _as_published(subject: Subject, proved: set[int]) -> bool:
    """Whether a network, repaired, has the published weights and no other layers before its features."""
    published, state = subject.published_tensors, subject.module.state_dict()
    if has_layers_of_its_own(subject):
        return False
    restored = {name for name in published if proved & {11, 13} or (9 in proved and name.endswith(STATISTICS))}
    return all(close(state[name], value) for name, value in published.items() if name not in restored)
