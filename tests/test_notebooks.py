"""Both notebooks run from their first cell to their last, on the digits."""

import json
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

_NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
_WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "weights"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the kernel's own machinery warns
@pytest.mark.parametrize("language", ["en", "es"])
def test_a_notebook_runs(language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if _WEIGHTS.is_dir():
        monkeypatch.setenv("HEADSTART_WEIGHTS", str(_WEIGHTS))
    # Both languages share one cache: the second notebook repeats no extraction.
    monkeypatch.setenv("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    notebook = nbformat.read(_NOTEBOOKS / f"exercise_{language}.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute()
    shown = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    assert ("Verdict" if language == "en" else "Veredicto") in shown or "<table" in shown
    assert list(tmp_path.glob("runs/*/results.json"))


def test_both_notebooks_have_the_same_code() -> None:
    codes = []
    for language in ("en", "es"):
        notebook = nbformat.read(_NOTEBOOKS / f"exercise_{language}.ipynb", as_version=4)
        cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
        without_comments = ["\n".join(line for line in cell.splitlines() if not line.startswith("#")) for cell in cells]
        codes.append([cell.replace('LANGUAGE = "es"', 'LANGUAGE = "en"') for cell in without_comments])
    assert codes[0] == codes[1]
