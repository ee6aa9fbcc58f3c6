"""The public function `diagnose`: why transfer learning failed, for a recipe, a finished run, or your own PyTorch code."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headstart.calls import written_call
from headstart.data.fingerprint import image_hashes, set_fingerprint
from headstart.data.splits import make_split
from headstart.diagnosis.look_history import read_history, val_shares
from headstart.diagnosis.read_predictions import read_predictions
from headstart.diagnosis.run import (
    DiagnosisRequest,
    diagnose_own,
    diagnose_recipe,
    load_data,
    read_diagnosis,
)
from headstart.diagnosis.scripts import is_script, load_build
from headstart.diagnosis.subject import Evidence, Kept, batched, subject_of_module
from headstart.diagnosis.targets import is_finished_run, refuse_near_misses
from headstart.environment import choose_device, require_working_packages
from headstart.errors import UsageError
from headstart.files import read_json, write_json
from headstart.records import ImageSet, Recipe, SizeCount, Split
from headstart.report.diagnosis import diagnosis_statement, write_diagnosis_report
from headstart.report.language import Texts, resolve_language
from headstart.report.write import ReportPaths
from headstart.study.ledger import recipe_from_json
from headstart.study.observer import Observer, SilentObserver

if TYPE_CHECKING:
    from torch import nn

Arrays = tuple[Any, Any]


@dataclass(frozen=True)
class Diagnosis:
    """A finished diagnosis: its numbers, its verdict and its files.

    Attributes:
        record: the content of `diagnosis.json` (docs/diagnosis.md).
        folder: of the run.
        paths: of the reports.
    """

    record: dict[str, Any]
    folder: Path
    paths: ReportPaths

    @property
    def verdict(self) -> str:
        """The verdict in one sentence."""
        return str(self.record["verdict"]["statement"])

    @property
    def causes(self) -> list[dict[str, Any]]:
        """All causes of the catalogue by weight: `id`, `name`, `status`, `points`, `evidence`."""
        found: list[dict[str, Any]] = self.record["causes"]
        return found

    @property
    def proved(self) -> list[str]:
        """Names of the proved causes, the costliest first."""
        return [cause["name"] for cause in self.causes if cause["status"] == "proved"]

    @property
    def repaired_recipe(self) -> Recipe | None:
        """The repaired recipe, where there is one; `headstart.compare(data, recipes=[...])` takes it."""
        settings = self.record["repaired_recipe"]
        return None if settings is None else recipe_from_json(settings)

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict and the causes that were found."""
        from headstart.report.diagnosis import render_diagnosis_summary

        return render_diagnosis_summary(self.record, self.record["language"])

    def __str__(self) -> str:
        return self.verdict


def diagnose(
    model: "nn.Module | str | Path",
    data: "str | Path | ImageSet | Arrays | None" = None,
    *,
    preprocess: Callable[..., Any] | None = None,
    head: "nn.Module | None" = None,
    train_mode: bool | None = None,
    batch: int = 64,
    history: Any = None,
    predictions: Any = None,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    augment: Callable[..., Any] | None = None,
    serve: Callable[..., Any] | None = None,
    recipe: str | Recipe | None = None,
    preset: str = "classroom",
    backbone: str | None = None,
    weights_dir: str | Path | None = None,
    scratch: bool = False,
    limit: int | None = None,
    split_seed: int = 0,
    keep_duplicates: bool = False,
    device: str = "auto",
    name: str | None = None,
    runs: str | Path = "runs",
    language: str | None = None,
    observer: Observer | None = None,
    command: str | None = None,
) -> Diagnosis:
    """Say why transfer learning failed, prove it with counterfactual runs, and hand over the repaired recipe.

    With your own network: `diagnose(model, data, preprocess=...)`; headstart looks at the tensors that really arrive, and
    changes nothing of yours. With one of ours: `diagnose("cifar10")`, `diagnose("runs/mine", recipe="mobilenetv2_100-probe")`.
    Without a network, from what is kept of a training in any library: `diagnose("cifar10", predictions=..., history=...)`.

    Args:
        model: a `torch.nn.Module` (backbone or whole classifier), `my_script.py:build`, the folder of a finished run, or data
            to diagnose a recipe of ours on, or your `predictions` or `history` of them.
        data: images for your own network: what `compare` takes, an `ImageSet`, or `(images (N, S, S, 3) uint8, labels (N,))`. Images
            of files become squares of one size first, cut out of their middle, of 256 pixels at most.
        preprocess: turns images into the network's input; called with PIL images, or with uint8 arrays, whichever it takes: the
            squares of `data`, in RGB.
        head: from features to logits, where `model` stops at features.
        train_mode: whether the network is run in training mode; `None` takes the mode it is in.
        batch: images that go through the network at a time.
        history: of your training: lists of `loss`, `val_loss`, `accuracy`, `val_accuracy` (Keras' history will do), or the
            path of a `.json` or `.csv` file with them; of a `.csv` whose lines are not all filled, the filled cells count.
        predictions: `(n, C)` outputs or `(n,)` classes for the test part, or for all images of the data, in its order; or the path of
            an `.npy`, `.npz` or `.csv` with them.
        loss: your loss function, from outputs and integer labels to a scalar.
        optimizer: the optimizer that trains your network.
        augment, serve: your training's and your serving's path from images to input, where they differ from `preprocess`.
        recipe: on data a recipe of ours, by name, as a TOML file or as a `Recipe`, `None` takes the preset's transfer recipe; of a
            run the name of one of its transfer recipes, `None` takes the first.
        preset: `classroom`, the class exercise as it was.
        backbone: of the recipe; `mobilenetv2_100` if none is named.
        weights_dir: folder of weight files, searched first.
        scratch: train headstart's own network from scratch (the recipe `fast`), too, on the same labels: what transfer has to beat (20),
            and the fair opponent beside a run's own (23). It takes minutes.
        limit: use a stratified subset of this many images for train and val together, and at most as many for test; of all images
            where the data has no test part of its own.
        split_seed, keep_duplicates: as for `compare`.
        device, name, runs, language, observer, command: as for `compare`.

    Returns:
        The diagnosis; report and `diagnosis.json` are on disk.

    Raises:
        HeadstartError: model, data or weights cannot be used; the message says what to do.
    """
    shown = command or written_call(diagnose, dict(locals()))
    require_working_packages()
    if preset != "classroom":
        raise UsageError(f"The preset to diagnose is classroom, not {preset!r}. Other recipes are named with --recipe.")
    texts = Texts(resolve_language(language))
    watcher = observer or SilentObserver()
    request = DiagnosisRequest(
        data=str(data) if isinstance(data, str | Path) else "",
        recipe=recipe,
        backbone=backbone,
        weights_dir=Path(weights_dir) if weights_dir is not None else None,
        limit=limit,
        split_seed=split_seed,
        remove_duplicates=not keep_duplicates,
        name=name,
        runs=Path(runs),
        scratch=scratch,
    )
    given = {
        "model": model,
        "preprocess": preprocess,
        "head": head,
        "train_mode": train_mode,
        "batch": batch,
        "history": history,
        "predictions": predictions,
        "loss": loss,
        "optimizer": optimizer,
        "augment": augment,
        "serve": serve,
    }
    if isinstance(model, str | Path) and is_script(str(model)):
        built = load_build(str(model))
        if twice := [name for name in built if name not in ("model", "batch") and given[name] is not None]:
            raise UsageError(
                f"{', '.join(twice)}: given with the call and by {model}, and only one of the two can count. Leave one out."
            )
        given |= built
    if isinstance(given["model"], str | Path):
        refuse_near_misses(given["model"])
    kept_alone = given["predictions"] is not None or given["history"] is not None
    if isinstance(given["model"], str | Path) and kept_alone:
        kept = given | {"data": data, "recipe": recipe, "backbone": backbone}
        folder = _diagnose_kept(kept, request, choose_device(device), watcher, shown)
    elif isinstance(given["model"], str | Path):
        _refuse_evidence(given | {"data": data})
        target = Path(given["model"])
        finished = is_finished_run(target)
        request = _request_of_run(target, request) if finished else replace(request, data=str(given["model"]))
        folder = diagnose_recipe(request, choose_device(device), watcher, shown)
    else:
        if recipe is not None or backbone is not None:
            raise UsageError(
                "`recipe` and `backbone` name recipes of ours; your own network is diagnosed as it is. Leave them out."
            )
        folder = _diagnose_module(given, data, request, choose_device(device), watcher, shown)
    record = read_diagnosis(folder)
    record["language"] = texts.language
    record["verdict"]["statement"] = diagnosis_statement(record, texts)
    write_json(folder / "diagnosis.json", record)
    return Diagnosis(record, folder, write_diagnosis_report(folder, texts.language))


def _diagnose_kept(
    given: dict[str, Any], request: DiagnosisRequest, device: torch.device, observer: Observer, command: str
) -> Path:
    """Predictions or a curve, and what else was kept of a training, without the network."""
    used = {"model", "batch", "predictions", "history", "loss"}
    if unused := [name for name, value in given.items() if name not in used and value is not None]:
        raise UsageError(
            f"{', '.join(unused)}: without a network only predictions, history and loss can be looked at, which describe a training of "
            f"your own, while {given['model']} alone is diagnosed with a recipe of ours. Leave the one or the other out, or "
            "give your model (on the command line: FILE.py:FUNCTION, and the images with --data)."
        )
    if is_finished_run(given["model"]):
        raise UsageError(
            f"{given['model']} is a run of headstart, and predictions and curves are of data: name the data instead, a name, a folder or "
            "an .npz file. What the run itself has is diagnosed without them."
        )
    images, split = load_data(replace(request, data=str(given["model"])), observer)
    kind = "history" if given["predictions"] is None else "predictions"
    if kind == "history" and request.scratch:
        raise UsageError(
            "scratch: a curve alone has no test images on which a network from scratch could be compared with it. Give the network's "
            "predictions, too, or leave scratch out."
        )
    if kind == "history" and given["loss"] is not None:
        raise UsageError(
            "loss: without the network or its predictions there is nothing to try it on. Give them, too, or leave it out."
        )
    name = Path(given[kind]).name if isinstance(given[kind], str | Path) else kind
    history = read_history(given["history"])
    if kind == "history" and not val_shares(history):
        raise UsageError(
            f"The curve {name} has no accuracy on val (val_accuracy), so nothing says what the network reaches. Give it, or the network's "
            "predictions, one row for each test image (predictions, on the command line --predictions)."
        )
    kept = Kept(name, Evidence(history, read_predictions(given["predictions"]), given["loss"]))
    return diagnose_own(kept, images, split, request, device, observer, command)


def _refuse_evidence(given: dict[str, Any]) -> None:
    """What belongs to a network of one's own says nothing of a recipe of ours: it is refused, not passed over."""
    own = [name for name, value in given.items() if name not in ("model", "batch") and value is not None]
    if own:
        raise UsageError(
            f"{', '.join(own)}: these describe a network of your own. {given['model']} is diagnosed with a recipe of ours, which "
            "is trained here. Leave them out, or give your model (on the command line: FILE.py:FUNCTION)."
        )


def _diagnose_module(
    given: dict[str, Any],
    data: "str | Path | ImageSet | Arrays | None",
    request: DiagnosisRequest,
    device: torch.device,
    observer: Observer,
    command: str,
) -> Path:
    if data is None:
        raise UsageError(
            "Your network needs data to be diagnosed on: name it with `data` (on the command line --data)."
        )
    if given["preprocess"] is None:
        raise UsageError(
            "Say how your images become the network's input: `preprocess`, the function that you use yourself."
        )
    images, split = _data(data, request, observer)
    example = images.images[split.train[:2]]
    subject = subject_of_module(
        given["model"],
        given["preprocess"],
        example,
        len(images.class_names),
        name=type(given["model"]).__name__,
        head=given["head"],
        train_mode=given["train_mode"],
        batch=given["batch"],
        weights_dir=request.weights_dir,
        evidence=Evidence(
            history=read_history(given["history"]),
            predictions=read_predictions(given["predictions"]),
            loss=given["loss"],
            optimizer=given["optimizer"],
            augment=batched(given["augment"], example, "augment") if given["augment"] is not None else None,
            serve=batched(given["serve"], example, "serve") if given["serve"] is not None else None,
        ),
    )
    return diagnose_own(subject, images, split, request, device, observer, command)


def _data(
    data: "str | Path | ImageSet | Arrays", request: DiagnosisRequest, observer: Observer
) -> tuple[ImageSet, Split]:
    if isinstance(data, str | Path):
        return load_data(request, observer)
    if not isinstance(data, ImageSet) and not (isinstance(data, tuple | list) and len(data) == 2):
        raise UsageError(
            f"`data` is a {type(data).__name__}. Expected what headstart.compare takes (a name, a folder, an .npz file), an "
            "ImageSet, or a pair: images (N, S, S, 3) uint8 and labels (N,). Of torchvision's CIFAR10: (dataset.data, "
            "dataset.targets)."
        )
    if request.limit is not None:
        raise UsageError(
            "`limit` is for data that headstart loads; of arrays or an ImageSet hand over as many as you like."
        )
    images = data if isinstance(data, ImageSet) else _image_set(*data)
    split, _ = make_split(images, seed=request.split_seed, remove_duplicates=request.remove_duplicates)
    return images, split


def _image_set(pixels: Any, labels: Any) -> ImageSet:
    values, targets = np.asarray(pixels), np.asarray(labels)
    if values.ndim != 4 or values.shape[3] != 3 or values.dtype != np.uint8 or values.shape[1] != values.shape[2]:
        raise UsageError(
            f"Images are (N, S, S, 3) uint8 arrays; these are {values.shape} {values.dtype}. A folder or an .npz file may have other forms."
        )
    if targets.shape != (len(values),):
        raise UsageError(
            f"There are {len(values)} images and labels of shape {targets.shape}; expected one label for each."
        )
    names, indices = np.unique(targets, return_inverse=True)
    class_names = tuple(str(one) for one in names)
    wanted = indices.astype(np.int64)
    side = values.shape[1]
    return ImageSet(
        name="arrays",
        source="arrays",
        images=values,
        labels=wanted,
        class_names=class_names,
        official_part=None,
        fingerprint=set_fingerprint(values, wanted, class_names, None),
        image_hashes=image_hashes(values),
        original_sizes=(SizeCount(side, side, len(values)),),
    )


def _request_of_run(folder: Path, request: DiagnosisRequest) -> DiagnosisRequest:
    """The request that a finished run answers: its data, its split, one of its recipes."""
    if isinstance(request.recipe, Recipe) or str(request.recipe).endswith(".toml"):
        raise UsageError(
            f"{folder} is a finished run, and of its recipes one is diagnosed: give its name. To diagnose another recipe, name the "
            "run's data instead of its folder: headstart.diagnose(data, recipe=...), on the command line DATA --recipe FILE.toml."
        )
    results, asked = read_json(folder / "results.json"), read_json(folder / "request.json")
    transfer = {entry["name"]: entry for entry in results["recipes"] if entry["kind"] in ("probe", "finetune")}
    wanted = request.recipe if request.recipe is not None else next(iter(transfer), None)
    if wanted not in transfer:
        known = ", ".join(transfer) or "none"
        raise UsageError(f"{folder} has no transfer recipe {wanted!r}. It has: {known}. Name one with --recipe.")
    settings = dict(transfer[wanted]["settings"])
    recipe = recipe_from_json(settings | {"callbacks": []})
    return DiagnosisRequest(
        data=results["data"]["source"],
        recipe=recipe.with_changes(backbone=request.backbone or recipe.backbone),
        weights_dir=request.weights_dir,
        limit=results["study"]["limit"],
        split_seed=asked["split_seed"],
        val_fraction=asked["val_fraction"],
        test_fraction=asked["test_fraction"],
        remove_duplicates=asked["remove_duplicates"],
        name=request.name,
        runs=request.runs,
        of_run=folder,
        scratch=request.scratch,
    )
