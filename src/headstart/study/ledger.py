"""The ledger: a run's folder, where what is done is remembered and nothing done is repeated.

runs/<name>/
  request.json           what was asked for; the same request continues the same run
  plan.json              recipes resolved, seeds, predicted seconds
  trials/<identity>/     one folder a trial; it is done when its result.json exists, which is written last
    result.json predictions.npz history.csv history.jsonl bundle.json model.safetensors
  results.json (of a diagnosis diagnosis.json) report.html report.md images/
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from headstart.errors import RunError
from headstart.files import read_json, sha256_of_file, write_json, written_atomically
from headstart.records import RESULTS_SCHEMA_VERSION, Cost, EpochRecord, Preprocessing, Recipe, TrialResult

_REQUEST, _PLAN = "request.json", "plan.json"
_FOLDER_DIGITS = 16  # of the identity; 64 bits do not collide by accident
_ARRAYS = ("test_indices", "test_labels", "test_logits", "val_labels", "val_logits", "train_correct")


@dataclass(frozen=True)
class RunSummary:
    """A line of `headstart runs`: trials that are done, and whether the report is there."""

    name: str
    path: Path
    trials_done: int
    finished: bool
    best: str | None
    statement: str | None


class Ledger:
    """A run's folder.

    Args:
        folder: made if missing.
        request: what the run is asked for; written down by `locked`, which nobody enters while another process works on the run.
    """

    def __init__(self, folder: Path, request: dict[str, Any] | None = None) -> None:
        self.folder, self._request = folder, request

    def trial_folder(self, identity: str) -> Path:
        """Return the folder of a trial, whether or not it exists."""
        return self.folder / "trials" / identity[:_FOLDER_DIGITS]

    def is_done(self, identity: str) -> bool:
        """Whether a trial's result is there."""
        return (self.trial_folder(identity) / "result.json").exists()

    def save(self, result: TrialResult) -> None:
        """Write a trial's predictions, then its `result.json`: after that rename the trial is done."""
        folder = self.trial_folder(result.identity)
        predictions = folder / "predictions.npz"
        with written_atomically(predictions) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **{name: getattr(result, name) for name in _ARRAYS})
        record = {
            "schema_version": RESULTS_SCHEMA_VERSION,
            "identity": result.identity,
            "seed": result.seed,
            "recipe": asdict(result.recipe),
            "history": [asdict(epoch) for epoch in result.history],
            "best_epoch": result.best_epoch,
            "stopped_early": result.stopped_early,
            "chosen": result.chosen,
            "cost": asdict(result.cost),
            "environment": result.environment,
            "predictions_sha256": sha256_of_file(predictions),
        }
        write_json(folder / "result.json", record)
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)

    def load(self, identity: str) -> TrialResult:
        """Read a trial's result back.

        Raises:
            RunError: it is not there, of another schema, or its predictions are not the ones it was saved with.
        """
        folder = self.trial_folder(identity)
        record = read_json(folder / "result.json")
        if record["schema_version"] != RESULTS_SCHEMA_VERSION:
            raise RunError(
                f"{folder} has schema {record['schema_version']}, this headstart reads {RESULTS_SCHEMA_VERSION}. "
                "Delete the folder and run the same command again."
            )
        predictions = folder / "predictions.npz"
        if not predictions.exists() or sha256_of_file(predictions) != record["predictions_sha256"]:
            raise RunError(f"{predictions} is missing or damaged. Delete {folder} and run the same command again.")
        with np.load(predictions, allow_pickle=False) as arrays:
            values = {name: arrays[name] for name in _ARRAYS}
        return TrialResult(
            identity=record["identity"],
            recipe=recipe_from_json(record["recipe"]),
            seed=record["seed"],
            history=tuple(EpochRecord(**epoch) for epoch in record["history"]),
            best_epoch=record["best_epoch"],
            stopped_early=record["stopped_early"],
            chosen=record["chosen"],
            cost=Cost(**{**record["cost"], "macs_uncounted": tuple(record["cost"]["macs_uncounted"])}),
            environment=record["environment"],
            **values,
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second process out of the run.

        Raises:
            RunError: another process is working on it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock")
        try:
            with lock.acquire(timeout=0):
                self._note_request()
                yield
        except Timeout as error:
            raise RunError(
                f"Another headstart is working on {self.folder}. Wait for it, or choose another --name."
            ) from error

    def _note_request(self) -> None:
        """Write the request down; a plan that was made for another one is void."""
        stored = self.folder / _REQUEST
        if self._request is not None and (not stored.exists() or read_json(stored) != self._request):
            write_json(stored, self._request)
            (self.folder / _PLAN).unlink(missing_ok=True)


def recipe_from_json(settings: dict[str, Any]) -> Recipe:
    """Make a `Recipe` from its JSON form."""
    values = dict(settings)
    if values.get("preprocessing") is not None:
        preprocessing = dict(values["preprocessing"])
        preprocessing["mean"] = tuple(preprocessing["mean"])
        preprocessing["std"] = tuple(preprocessing["std"])
        values["preprocessing"] = Preprocessing(**preprocessing)
    values["callbacks"] = tuple(values.get("callbacks", ()))
    return Recipe(**values)


def open_run(runs: Path, name: str | None, data_name: str, request: dict[str, Any]) -> Ledger:
    """Find the run that this request continues, or make a new one.

    Args:
        runs: the folder of runs.
        name: the user's choice; without one it is the data's name, with a number if that name is taken by another request.
        data_name: short name of the data.
        request: JSON values that decide what the run does.

    Returns:
        The ledger; its `request.json` is written once it is locked.
    """
    folder, number = runs / (name or data_name), 1
    while name is None and (folder / _REQUEST).exists() and read_json(folder / _REQUEST) != request:
        number += 1
        folder = runs / f"{data_name}-{number}"
    return Ledger(folder, request)


def list_runs(runs: Path) -> list[RunSummary]:
    """List the runs in a folder, by name."""
    summaries = []
    for request in sorted(runs.glob("*/request.json")):
        folder = request.parent
        results = folder / "results.json"
        if not results.exists():
            results = folder / "diagnosis.json"
        verdict = read_json(results)["verdict"] if results.exists() else {}
        summaries.append(
            RunSummary(
                name=folder.name,
                path=folder,
                trials_done=len(list(folder.glob("trials/*/result.json"))),
                finished=results.exists(),
                best=verdict.get("best"),
                statement=verdict.get("statement"),
            )
        )
    return summaries
