"""A run folder's reports, written from its `results.json`: `report.html`, `report.md` and the figures of the latter."""

from dataclasses import dataclass
from pathlib import Path

from headstart.errors import RunError
from headstart.files import read_json, write_text
from headstart.records import RESULTS_SCHEMA_VERSION
from headstart.report.build import build_document
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
    path = run_folder / "results.json"
    results = read_json(path)
    version = results.get("schema_version") if isinstance(results, dict) else None
    if not isinstance(version, int):
        raise RunError(
            f"{path} is not a results file of headstart: it has no schema_version. Run the comparison again."
        )
    if version > RESULTS_SCHEMA_VERSION:
        raise RunError(
            f"{path} has schema version {version}, written by headstart {results.get('headstart_version', '?')}; "
            f"this headstart reads up to {RESULTS_SCHEMA_VERSION}. Upgrade headstart and build the report again."
        )
    document = build_document(results, language, run_folder)
    paths = ReportPaths(run_folder / "report.html", run_folder / "report.md")
    write_text(paths.html, render_html(document))
    write_text(paths.markdown, render_markdown(document, run_folder / "figures"))
    return paths
