"""A run folder's reports, written from its `results.json`: `report.html`, `report.md` and the figures of the latter."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.errors import RunError
from headstart.files import read_json, write_text
from headstart.records import RESULTS_SCHEMA_VERSION
from headstart.report.build import build_document
from headstart.report.document import Document
from headstart.report.render import render_html, render_markdown


@dataclass(frozen=True)
class ReportPaths:
    """Where the two reports are."""

    html: Path
    markdown: Path


def write_report(run_folder: Path, language: str) -> ReportPaths:
    """Write a run's reports.

    Args:
        run_folder: with `results.json` and the images that it names.
        language: `en` or `es`.

    Returns:
        The paths of the reports.

    Raises:
        RunError: there is no `results.json`, or it cannot be read by this version.
        UsageError: there are no texts in that language.
    """
    results = read_versioned(run_folder / "results.json", RESULTS_SCHEMA_VERSION, again="Run the comparison again")
    return write_document(build_document(results, language, run_folder), run_folder)


def read_versioned(path: Path, newest: int, *, again: str) -> dict[str, Any]:
    """Read what a report is made from, if this version can.

    Args:
        path: of a JSON file with a `schema_version`.
        newest: schema version that is understood.
        again: the advice for a file that is none of ours.

    Raises:
        RunError: the file is missing, is none of ours, or was written by a newer headstart.
    """
    content = read_json(path)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(version, int):
        raise RunError(f"{path} is not a results file of headstart: it has no schema_version. {again}.")
    if version > newest:
        raise RunError(
            f"{path} has schema version {version}, written by headstart {content.get('headstart_version', '?')}; "
            f"this headstart reads up to {newest}. Upgrade headstart and build the report again."
        )
    return content


def write_document(document: Document, folder: Path) -> ReportPaths:
    """Write a document into a folder as `report.html`, `report.md` and the figures of the latter."""
    paths = ReportPaths(folder / "report.html", folder / "report.md")
    write_text(paths.html, render_html(document))
    write_text(paths.markdown, render_markdown(document, folder / "figures"))
    return paths
