"""Predictions as people keep them, and what looks like predictions and is something else."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from headstart.diagnosis.read_predictions import read_predictions
from headstart.errors import UsageError

WANTED = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])


def read(given: Any) -> npt.NDArray[Any]:
    """What is read, which must be something."""
    found = read_predictions(given)
    assert found is not None
    return found


def test_tables_are_read_as_people_have_them(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    wanted = [[0.1, 0.9], [0.8, 0.2]]
    for header in ("", "cat,dog\n", "0,1\n"):
        path.write_text(header + "0.1,0.9\n0.8,0.2\n", encoding="utf-8")
        assert read(path).tolist() == wanted
    path.write_text("class\n1\n0\n", encoding="utf-8")
    assert read(str(path)).tolist() == [1, 0]
    path.write_text("file,class\na.png,1\n", encoding="utf-8")
    with pytest.raises(UsageError, match="no table of numbers"):
        read_predictions(path)


def test_arrays_are_read_from_every_file_of_numpy(tmp_path: Path) -> None:
    np.save(tmp_path / "outputs.npy", WANTED)
    np.savez(tmp_path / "outputs.npz", other=WANTED + 1, predictions=WANTED)
    for given in (
        tmp_path / "outputs.npy",
        str(tmp_path / "outputs.npz"),
        WANTED,
        torch.tensor(WANTED, requires_grad=True),
    ):
        np.testing.assert_allclose(read(given), WANTED, rtol=1e-6)
    assert read_predictions(None) is None


def test_files_that_cannot_be_read_are_refused_with_the_formats(tmp_path: Path) -> None:
    torch.save(torch.tensor(WANTED), tmp_path / "outputs.pt")
    with pytest.raises(UsageError, match=r"outputs\.pt are in no format .*\.npy, \.npz or \.csv.*numpy\.save"):
        read_predictions(tmp_path / "outputs.pt")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], object), allow_pickle=True)
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("objects.npy", "empty.npz"):
        with pytest.raises(UsageError, match=rf"{name} cannot be read"):
            read_predictions(tmp_path / name)
    np.save(tmp_path / "named.csv", WANTED)
    (tmp_path / "named.csv.npy").rename(tmp_path / "named.csv")
    with pytest.raises(UsageError, match="no text of UTF-8"):
        read_predictions(tmp_path / "named.csv")
    with pytest.raises(UsageError, match="expected numbers"):
        read_predictions([["a.png", "1"]])


def test_a_table_s_index_is_no_score(tmp_path: Path) -> None:
    path = tmp_path / "outputs.csv"
    for first in (0, 1):
        rows = "".join(f"{first + number},{one},{other}\n" for number, (one, other) in enumerate(WANTED))
        path.write_text(",cat,dog\n" + rows, encoding="utf-8")
        with pytest.raises(UsageError, match=r"Column 1 .* counts the rows .*index=False"):
            read_predictions(path)
    path.write_text(",0\n0,1\n1,0\n2,1\n", encoding="utf-8")  # two classes, the index and the predicted class
    with pytest.raises(UsageError, match="counts the rows"):
        read_predictions(path)


def test_scores_that_are_no_numbers_are_refused_with_how_many_rows_have_them() -> None:
    scores = np.zeros((10, 3))
    scores[2:4, 1] = np.nan
    with pytest.raises(UsageError, match=r"in 2 of 10 rows"):
        read_predictions(scores)
