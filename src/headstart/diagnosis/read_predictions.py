"""Predictions that somebody kept, as arrays: given as such, or read from `.npy`, `.npz` or `.csv` files."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from headstart.errors import UsageError

_COUNTED = 3  # rows from which a column that counts them is no column of scores


def read_predictions(given: Any) -> npt.NDArray[Any] | None:
    """Per-image outputs: an array, a tensor, or a file of them.

    Args:
        given: `(n, C)` outputs or `(n,)` classes; or the path of a `.npy`, `.npz` or `.csv` file with them; `None` for none.

    Raises:
        UsageError: there is no such file, it is of another kind, or it holds something else than finite numbers.
    """
    if given is None:
        return None
    if isinstance(given, str | Path):
        found = _from_file(Path(given))
    elif isinstance(given, torch.Tensor):
        found = given.detach().cpu().float().numpy()
    else:
        found = _as_array(given)
    if found.dtype.kind not in "biuf":
        raise UsageError(
            f"The predictions are an array of {found.dtype}; expected numbers: a column for each class, or the class' number. Leave "
            "out columns of names."
        )
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        rows = int((~np.isfinite(found)).reshape(len(found), -1).any(1).sum())
        raise UsageError(
            f"The predictions hold values that are no numbers (NaN or infinite), in {rows} of {len(found)} rows: the training diverged, "
            "or cells are empty. Predict again with weights of an epoch before that."
        )
    _refuse_row_numbers(found)
    return found


def _as_array(given: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(given)
    except ValueError as error:
        raise UsageError(f"The predictions are no table: {error}. Expected as many numbers in every row.") from error


def _from_file(path: Path) -> npt.NDArray[Any]:
    if not path.is_file():
        raise UsageError(f"There is no file of predictions {path}.")
    readers = {".npy": _from_npy, ".npz": _from_npz, ".csv": _from_csv}
    if path.suffix.lower() not in readers:
        raise UsageError(
            f"The predictions {path} are in no format that is read here: .npy, .npz or .csv. Save them with "
            "numpy.save('predictions.npy', outputs); of a torch tensor, outputs.detach().cpu().numpy()."
        )
    return readers[path.suffix.lower()](path)


def _from_npy(path: Path) -> npt.NDArray[Any]:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(
            f"The predictions {path} cannot be read: {error}. Expected one array of numbers, as numpy.save writes it."
        ) from error


def _from_npz(path: Path) -> npt.NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays)
            return np.asarray(arrays["predictions" if "predictions" in names else names[0]])
    except (OSError, ValueError, EOFError, IndexError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"The predictions {path} cannot be read: {error}. Expected an array of numbers named predictions, as "
            "numpy.savez(path, predictions=outputs) writes it."
        ) from error


def _from_csv(path: Path) -> npt.NDArray[Any]:
    """The rows of a CSV of numbers, its header left out.

    A first row that counts 0, 1, 2, ... is the header that pandas gives columns without names.
    """
    try:
        rows = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except ValueError as error:
        raise UsageError(
            f"The predictions in {path} are no text of UTF-8: {error}. Expected a table of numbers."
        ) from error
    first = [word.strip() for word in rows[0].split(",")] if rows else []
    counted = len(first) > 1 and first == [str(number) for number in range(len(first))]
    try:
        header = counted or not np.isfinite([float(word) for word in first]).all()
    except ValueError:
        header = True
    try:
        return np.loadtxt(rows[header:], delimiter=",", ndmin=1)
    except ValueError as error:
        raise UsageError(
            f"The predictions in {path} are no table of numbers: {error}. Leave out columns of names; give one column for each "
            "class, or one with the class' number."
        ) from error


def _refuse_row_numbers(outputs: npt.NDArray[Any]) -> None:
    """A column that counts the rows is a table's index: beside scores it would win every time."""
    if outputs.ndim != 2 or outputs.shape[1] < 2 or len(outputs) < _COUNTED:
        return
    rows = np.arange(len(outputs))
    for number, column in enumerate(outputs.T, start=1):
        if np.array_equal(column, rows) or np.array_equal(column, rows + 1):
            raise UsageError(
                f"Column {number} of the predictions counts the rows ({column[0]:g}, {column[1]:g}, {column[2]:g}, ...): it is the "
                "table's index, no score of a class. Leave it out; pandas does with to_csv(path, index=False)."
            )
