"""The public Python functions: `compare`, `diagnose`, `pretrain`, `load`, `rebuild_report`. The command line calls these and prints."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.bundle import Bundle, load_bundle
from headstart.calls import written_call
from headstart.environment import choose_device, require_working_packages
from headstart.errors import RunError, UsageError
from headstart.files import read_json
from headstart.records import Augmentation, Recipe
from headstart.report.language import resolve_language
from headstart.report.results import write_results
from headstart.report.write import ReportPaths, write_report
from headstart.study.ledger import Ledger
from headstart.study.observer import Observer, SilentObserver
from headstart.study.pretraining import Pretrained, run_pretraining
from headstart.study.pretraining_request import PretrainRequest
from headstart.study.run import StudyRequest, run_study
from headstart.training.callbacks import Callback


@dataclass(frozen=True)
class Comparison:
    """A finished comparison: its numbers, its verdict and its files. In a notebook it shows itself.

    Attributes:
        results: the content of `results.json` (docs/results.md).
        folder: of the run.
        paths: of the reports.
    """

    results: dict[str, Any]
    folder: Path
    paths: ReportPaths

    @property
    def verdict(self) -> str:
        """The verdict in one sentence."""
        return str(self.results["verdict"]["statement"])

    @property
    def best(self) -> str | None:
        """Name of the recipe that the verdict recommends; `None` if nothing was learned."""
        best = self.results["verdict"]["best"]
        return None if best is None else str(best)

    @property
    def accuracies(self) -> dict[str, float]:
        """Mean test accuracy of each recipe, 0 to 1."""
        return {entry["name"]: entry["test_accuracy"]["mean"] for entry in self.results["recipes"]}

    def recipe(self, name: str) -> dict[str, Any]:
        """Return one recipe's entry of `results.json`.

        Raises:
            UsageError: there is none of this name.
        """
        return _recipe_entry(self.results, name)

    def model(self, recipe: str | None = None) -> Bundle:
        """Load the trained model of a recipe (the recommended one if none is named), first seed."""
        return load(self.folder, recipe=recipe)

    def _repr_html_(self) -> str:
        """What a notebook shows: verdict and side-by-side table."""
        from headstart.report.render import render_summary_html

        return render_summary_html(self.results, self.results["language"])

    def __str__(self) -> str:
        return self.verdict


def compare(
    data: str | Path = "digits",
    recipes: Sequence[str | Recipe] | str | Recipe | None = None,
    seeds: int | None = None,
    *,
    preset: str = "default",
    backbones: Sequence[str] | str = (),
    weights_dir: str | Path | None = None,
    input_size: int | None = None,
    budget: str | float | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    augmentation: str | None = None,
    limit: int | None = None,
    margin: float = 0.01,
    split_seed: int = 0,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    keep_duplicates: bool = False,
    device: str = "auto",
    name: str | None = None,
    runs: str | Path = "runs",
    language: str | None = None,
    callbacks: Sequence[Callback] = (),
    tensorboard: bool = False,
    observer: Observer | None = None,
    command: str | None = None,
) -> Comparison:
    """Compare training from scratch with reusing a pretrained network, on your images.

    Running it again with the same arguments continues or rereads the same run.

    Args:
        data: `digits`, `cifar10`, `cifar100`, a folder of images, or an `.npz` file.
        recipes: names, paths of TOML files, or `Recipe` records, one alone or several; `None` takes the preset's.
        seeds: number of repetitions; `None` takes three where a quarter of an hour (or the budget) allows.
        preset: `default` or `classroom`.
        backbones: timm model names or weight files, one alone or several; `mobilenetv2_100` if none is named, and `small32_m` for
            images up to 64 px.
        weights_dir: folder of weight files, searched first.
        input_size: side in pixels that every network sees.
        budget: such as `"10m"`, or seconds; seeds and epochs are planned to fit, and what still does not is left out and named. Not
            together with `epochs`.
        epochs, batch_size, augmentation: override the recipes' own.
        limit: use a stratified subset of this many images for train and val together, and at most as many for test; of all images
            where the data has no test part of its own.
        margin: differences within it do not matter to you (a share: 0.01 is one point).
        split_seed, val_fraction, test_fraction: of the split, where the data has none of its own.
        keep_duplicates: leave images in train whose exact pixels are in test.
        device: `auto`, `cpu`, `cuda` or `mps`.
        name, runs: of the run's folder, `runs/<name>`.
        language: of the report, `en` or `es`; `None` asks the locale.
        callbacks: your own, added to every recipe that trains by epochs.
        tensorboard: write TensorBoard logs into each trial's folder.
        observer: is told of every step; see `headstart.study.observer.Observer`.
        command: recorded as the way to reproduce the run.

    Returns:
        The comparison; its report is on disk.

    Raises:
        HeadstartError: data, weights or arguments cannot be used; the message says what to do.
    """
    given = dict(locals())
    require_working_packages()
    chosen_language = resolve_language(language)
    request = StudyRequest(
        data=str(data),
        preset=preset,
        recipes=tuple(_several(recipes or ())),
        backbones=tuple(_several(backbones)),
        weights_dir=Path(weights_dir) if weights_dir is not None else None,
        input_size=input_size,
        seeds=seeds,
        budget_seconds=parse_budget(budget),
        epochs=epochs,
        batch_size=batch_size,
        augmentation=augmentation,
        limit=limit,
        margin=margin,
        split_seed=split_seed,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        remove_duplicates=not keep_duplicates,
        name=name,
        runs=Path(runs),
        tensorboard=tensorboard,
    )
    outcome = run_study(request, choose_device(device), observer or SilentObserver(), callbacks)
    if not outcome.recipes:
        reasons = "; ".join(f"{missing.name}: {missing.detail}" for missing in outcome.not_run)
        raise RunError(f"No recipe could run. {reasons}")
    results_path = write_results(outcome, chosen_language, command or written_call(compare, given))
    paths = write_report(outcome.ledger.folder, chosen_language)
    return Comparison(read_json(results_path), outcome.ledger.folder, paths)


def pretrain(
    data: str | Path,
    out: str | Path | None = None,
    *,
    architecture: str = "small32_m",
    teacher: str | None = None,
    weights_dir: str | Path | None = None,
    input_size: int = 32,
    epochs: int | None = None,
    budget: str | float | None = None,
    batch_size: int = 128,
    learning_rate: float = 0.03,
    mixup: float = 0.0,
    augmentation: Augmentation | None = None,
    title: str = "",
    licence: str = "",
    judges: Sequence[str | Path] | str | Path = (),
    limit: int | None = None,
    seed: int = 0,
    device: str = "auto",
    observer: Observer | None = None,
    command: str | None = None,
) -> Pretrained:
    """Train a backbone for small images on any labelled source, and write its weight file and model card.

    Running it again with the same arguments continues a training that was interrupted, or finds it done.

    Args:
        data: as for `compare`; a test part of its own is left alone.
        out: the weight file, ending in `.safetensors`; `None` is `<architecture>.safetensors` here.
        architecture: `small32_s`, `small32_m` or `small32_l`.
        teacher: a pretrained backbone whose features are learnt beside the labels; `None` learns from labels alone.
        weights_dir: folder of weight files, searched first for the teacher.
        input_size: side in pixels that it is made for; larger images are shrunk to it.
        epochs: passes over the images; `None` is 16, or what the budget allows.
        budget: such as `"60m"`, or seconds: epochs are planned to fit. Not together with `epochs`.
        batch_size, learning_rate, mixup: of the training; mixup 0 mixes no images.
        augmentation: `None` crops and recolours, and mirrors where the data is known to allow it.
        title, licence: of the training images, as the model card names them.
        judges: other data sets, one alone or several, on which a linear probe is to be measured afterwards.
        limit: use a stratified subset of this many training images.
        seed: of everything that is drawn.
        device, observer, command: as for `compare`.

    Returns:
        The weight file and the path of its card.

    Raises:
        HeadstartError: data, weights or arguments cannot be used; the message says what to do.
    """
    given = dict(locals())
    require_working_packages()
    request = PretrainRequest(
        data=str(data),
        out=Path(out) if out is not None else None,
        architecture=architecture,
        teacher=teacher,
        weights_dir=Path(weights_dir) if weights_dir is not None else None,
        input_size=input_size,
        epochs=epochs,
        budget_seconds=parse_budget(budget),
        batch_size=batch_size,
        learning_rate=learning_rate,
        mixup=mixup,
        augmentation=augmentation,
        title=title,
        licence=licence,
        judges=tuple(str(source) for source in _several(judges)),
        limit=limit,
        seed=seed,
    )
    return run_pretraining(
        request, choose_device(device), observer or SilentObserver(), command or written_call(pretrain, given)
    )


def load(run: str | Path, recipe: str | None = None, seed: int | None = None) -> Bundle:
    """Load a trained model with its preprocessing and class names.

    Args:
        run: a run's folder, or one trial's folder.
        recipe: its name; `None` takes the one that the verdict recommends.
        seed: `None` takes the first.

    Raises:
        RunError: there is no such run, or its files are damaged.
        UsageError: the run has no such recipe or seed.
    """
    folder = Path(run)
    if (folder / "bundle.json").exists():
        return load_bundle(folder)
    results = read_results(folder)
    name = recipe or results["verdict"]["best"]
    if name is None:
        raise UsageError(f"No recipe of {folder} learned anything; name the one you want all the same.")
    entry = _recipe_entry(results, name)
    seeds = entry["seeds"]
    if seed is not None and seed not in seeds:
        raise UsageError(f"Recipe {name!r} was run with seeds {seeds}, not {seed}.")
    identity = entry["trials"][seeds.index(seed) if seed is not None else 0]
    return load_bundle(Ledger(folder).trial_folder(identity))


def rebuild_report(run: str | Path, language: str | None = None) -> ReportPaths:
    """Rebuild the reports of a comparison or a diagnosis from its JSON file, in `en` or `es`."""
    folder = Path(run)
    if (folder / "diagnosis.json").exists():
        from headstart.report.diagnosis import write_diagnosis_report  # here, so that a comparison does not wait for it

        return write_diagnosis_report(folder, resolve_language(language))
    read_results(folder)
    return write_report(folder, resolve_language(language))


def read_results(folder: Path) -> dict[str, Any]:
    """Read a run's `results.json`.

    Raises:
        RunError: the folder is not a finished run.
    """
    if not (folder / "results.json").exists():
        raise RunError(f"{folder} is not a finished run: it has no results.json. `headstart runs` lists the runs.")
    results: dict[str, Any] = read_json(folder / "results.json")
    return results


def parse_budget(budget: str | float | None) -> float | None:
    """Read a budget: seconds as a number, or text such as `90s`, `10m`, `1h`, `1h30m`.

    Raises:
        UsageError: the text is none of these, or not positive.

    >>> parse_budget("1h30m"), parse_budget("90s"), parse_budget(None)
    (5400.0, 90.0, None)
    """
    if budget is None:
        return None
    if isinstance(budget, str):
        match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s?)?", budget.strip())
        if match is None or not any(match.groups()):
            raise UsageError(f"A budget looks like 90s, 10m or 1h30m, not {budget!r}.")
        hours, minutes, seconds = (float(part or 0) for part in match.groups())
        budget = hours * 3600 + minutes * 60 + seconds
    if budget <= 0:
        raise UsageError("A budget is a positive time.")
    return float(budget)


def _several(given: Sequence[Any] | Any) -> Sequence[Any]:
    """A list of things as it is; a name or path alone as the list of it, not of its letters."""
    return [given] if isinstance(given, str | Path | Recipe) else given


def _recipe_entry(results: dict[str, Any], name: str) -> dict[str, Any]:
    for entry in results["recipes"]:
        if entry["name"] == name:
            found: dict[str, Any] = entry
            return found
    known = ", ".join(entry["name"] for entry in results["recipes"])
    raise UsageError(f"The run has no recipe {name!r}; it has {known}.")
