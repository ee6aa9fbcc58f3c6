"""The rows that benchmarks/diagnosis/run.py measured: of every case one, in its part's file.

The files are benchmarks/results/diagnosis_tune.json and diagnosis_report.json. There is none of both parts: no case is in two.
"""

from pathlib import Path
from typing import Any

from cases import PARTS

from headstart.files import read_json

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks" / "results"
Row = dict[str, Any]
Files = dict[Path, dict[str, Any]]
"""What each file of rows holds: `cases`, the rows by name, beside where and when they were measured."""


def part_file(part: str, folder: Path = RESULTS) -> Path:
    """The file that the rows of a part are in."""
    return folder / f"diagnosis_{part}.json"


def measured_files(folder: Path = RESULTS) -> list[Path]:
    """The files of those parts of which something has been measured."""
    return [path for path in (part_file(part, folder) for part in PARTS) if path.exists()]


def files_of(paths: list[Path]) -> Files:
    """What the files hold.

    Raises:
        RunError: one of them is missing or is not JSON.
    """
    return {path: read_json(path) for path in paths}


def rows_of(files: Files) -> list[Row]:
    """The rows of all files with their names, by name, whenever each was measured; a case that two files have is refused."""
    rows: dict[str, Row] = {}
    origin: dict[str, Path] = {}
    for path, results in files.items():
        for name, row in results["cases"].items():
            if name in rows:
                raise SystemExit(f"{name} is in {origin[name]} and in {path}: name one of the two with --results.")
            rows[name], origin[name] = {**row, "name": name}, path
    return [rows[name] for name in sorted(rows)]
