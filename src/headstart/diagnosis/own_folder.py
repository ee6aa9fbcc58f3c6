"""The folder of a diagnosis: what decides that two of somebody's own network are the same, and what must not be overwritten."""

from pathlib import Path
from typing import Any

import numpy as np

from headstart.diagnosis.record import RULES_VERSION
from headstart.diagnosis.subject import Kept, Subject
from headstart.errors import UsageError
from headstart.files import canonical_json, read_json, sha256_of_text
from headstart.models.weights import hash_of_state
from headstart.records import ImageSet, Split

_FED = 8  # images whose inputs tell two preprocessings apart


def own_request(subject: Subject | Kept, images: ImageSet, split: Split) -> dict[str, Any]:
    """What decides a diagnosis, as far as it can be told: the same network, fed the same, on the same data.

    A preprocessing that draws at random is another one each time. Functions that were handed over as evidence are told apart by
    whether they are there.

    Args:
        subject, images, split: what is diagnosed, on what.

    Returns:
        JSON values for `request.json`.
    """
    asked = {
        "data": images.fingerprint,
        "split": [part.tolist() for part in (split.train, split.val, split.test)],
        "evidence": _evidence(subject),
        "network": None if isinstance(subject, Kept) else _network(subject, images, split),
    }
    return {
        "diagnosis": RULES_VERSION,
        "subject": {"kind": _kind(subject), "name": subject.name},
        "data": images.fingerprint,
        "identity": sha256_of_text(canonical_json(asked)),
    }


def require_own_folder(folder: Path, subject: Subject | Kept) -> None:
    """Refuse to write a diagnosis over a run, or over the diagnosis of something else.

    Args:
        folder: that the user named.
        subject: to diagnose.

    Raises:
        UsageError: it holds anything but an earlier diagnosis of this subject.
    """
    request, record = folder / "request.json", folder / "diagnosis.json"
    if not request.exists() and not record.exists():
        return
    held = read_json(request if request.exists() else record).get("subject")
    if held is not None and (held["kind"], held["name"]) == (_kind(subject), subject.name):
        return
    raise UsageError(
        f"{folder} holds {_described(held)}, which a diagnosis of {subject.name} would replace. Choose another --name, or leave it out: "
        "then a free one is taken."
    )


def require_recipes_folder(folder: Path) -> None:
    """Refuse to write a recipe's diagnosis over a comparison, or over the diagnosis of somebody's own network.

    Args:
        folder: that the user named.

    Raises:
        UsageError: it holds one of these.
    """
    request = folder / "request.json"
    own = request.exists() and read_json(request).get("subject") is not None
    if own or (folder / "results.json").exists():
        raise UsageError(
            f"{folder} holds another run, which a diagnosis would replace. Choose another --name, or leave it out."
        )


def _described(held: dict[str, Any] | None) -> str:
    if held is None or held["kind"] == "recipe":
        return "a run of headstart's own recipes"
    return f"the diagnosis of {held['name']}"


def _kind(subject: Subject | Kept) -> str:
    return subject.kind if isinstance(subject, Kept) else "module"


def _network(subject: Subject, images: ImageSet, split: Split) -> dict[str, Any]:
    """The network's tensors, and the inputs that some images become."""
    fed = subject.prepare(images.images[split.train[:_FED]])
    modules = {"module": subject.module, **({"head": subject.head} if subject.head is not None else {})}
    tensors = {"inputs": fed} | {
        f"{part}.{name}": value
        for part, module in modules.items()
        for name, value in (*module.named_parameters(), *module.named_buffers())
    }
    return {
        "tensors": hash_of_state(tensors),
        "layers": sha256_of_text(str(modules)),
        "train_mode": subject.train_mode,
        "batch": subject.batch,
    }


def _evidence(subject: Subject | Kept) -> dict[str, Any]:
    given = subject.evidence
    outputs = given.predictions
    return {
        "history": sha256_of_text(repr(sorted(given.history.items()))),
        "predictions": None if outputs is None else sha256_of_text(f"{outputs.shape} {np.asarray(outputs).tolist()!r}"),
        "functions": [name for name in ("loss", "optimizer", "augment", "serve") if getattr(given, name) is not None],
    }
