"""Write the table of docs/diagnosis.md from benchmarks/results/diagnosis.json.

    python benchmarks/diagnosis/table.py [--results FILE] [--part report|tune|all]

It is printed, and put between the markers `<!-- diagnosis-bench -->` and `<!-- end -->` of docs/diagnosis.md where these are.
Proportions have Wilson's intervals, means and the recovered share bootstrap intervals over cases.
"""

import argparse
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from headstart.analysis.diagnosis import CATALOGUE, LEAST_POINTS
from headstart.analysis.statistics import Estimate, mean_estimate, wilson
from headstart.files import read_json
from headstart.randomness import generator

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "diagnosis.md"
RESULTS = ROOT / "benchmarks" / "results" / "diagnosis.json"
OPENED, CLOSED = "<!-- diagnosis-bench -->\n", "\n<!-- end -->"
WORTH_RECOVERING = 3.0
"""Points: below it, the share that was recovered is mostly the noise of the test images."""

_RECOVERED = 0.9
_RESAMPLES = 2000
Row = dict[str, Any]


def main() -> None:
    """Print the table, and write it into the page if there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--part", choices=("report", "tune", "all"), default="report")
    arguments = parser.parse_args()
    results = read_json(arguments.results)
    rows = [row for row in results["cases"].values() if arguments.part in (row["part"], "all")]
    text = "\n\n".join([summary(rows), by_cause(rows), machine(results, rows)])
    print(text)
    if not PAGE.exists():
        return
    page = PAGE.read_text(encoding="utf-8")
    before, opened, rest = page.partition(OPENED)
    _, closed, after = rest.partition(CLOSED)
    if not opened or not closed:
        raise SystemExit(f"{PAGE} has no place for the table: {OPENED.strip()} and {CLOSED.strip()}, each on a line.")
    PAGE.write_text(before + opened + text + closed + after, encoding="utf-8")


def summary(rows: list[Row]) -> str:
    """What the bars are about, one line each."""
    singles, pairs, healthy = (_of_kind(rows, kind) for kind in ("single", "pair", "healthy"))
    checks = sum(row.get("checks", 0) for row in healthy)
    alarms = sum(len(_found(row)) for row in healthy)
    true = sum(_true_of_the_data(row) for row in healthy)
    worth = [row for row in rows if _lost(row) >= WORTH_RECOVERING and "after_repair" in row["accuracy"]]
    errors = _share_errors(rows)
    lines = [
        "| question | bar | result [95%] | of |",
        "|---|---|---|---|",
        _line("one fault: the top cause named is the planted one", "95%", singles, _top_right),
        _line(_costly("one fault"), "95%", [row for row in singles if _costs(row)], _top_right),
        _line("two faults: the top cause named is one of them", "", pairs, _top_right),
        _line("two faults: both are found", "85%", pairs, _all_found),
        _line(_costly("two faults"), "85%", [row for row in pairs if _costs(row)], _all_found),
        _counted("healthy recipes: checks that raise a false alarm", "2%", alarms, checks, "checks"),
        _counted("the same, without what this benchmark measures to be true", "2%", alarms - true, checks, "checks"),
        _line("healthy recipes with a false alarm", "", healthy, lambda row: bool(_found(row))),
        _line(
            "faulty recipes with a cause named that was not planted",
            "",
            [*singles, *pairs],
            lambda row: bool(set(_found(row)) - set(row["planted"])),
        ),
        f"| lost points that the repair recovers, all together | 90% | {_recovered(worth)} | {len(worth)} recipes |",
        _line("recipes that recover 90% of their lost points", "", worth, lambda row: _gained(row) >= _RECOVERED),
        f"| error of a cause's share, absolute, mean | | {_mean(errors, ' points')} | {len(errors)} shares |",
        f"| seconds per diagnosis: median (nine of ten below) | | {_seconds(rows)} | {len(rows)} recipes |",
    ]
    return "\n".join(lines)


def by_cause(rows: list[Row]) -> str:
    """For every planted cause how often it was found and named first, and what it cost."""
    lines = [
        "| cause | planted | found | named first, alone | costs, measured: median points |",
        "|---|---|---|---|---|",
    ]
    for cause, name in CATALOGUE.items():
        planted = [row for row in rows if cause in row["planted"]]
        if not planted:
            lines.append(f"| {cause} {name} | not planted | | | |")
            continue
        alone = [row for row in planted if row["kind"] == "single"]
        found = sum(cause in _found(row) for row in planted)
        first = sum(row.get("top") == cause for row in alone)
        costs = [row["measured"][str(cause)]["points"] for row in planted if str(cause) in row.get("measured", {})]
        median = f"{statistics.median(costs):.1f}" if costs else ""
        lines.append(
            f"| {cause} {name} | {len(planted)} | {_proportion(found, len(planted))} | "
            f"{_proportion(first, len(alone))} | {median} |"
        )
    return "\n".join(lines)


def machine(results: dict[str, Any], rows: list[Row]) -> str:
    """When and on what it was measured, and what failed."""
    environment = results["environment"]
    failed = sum("error" in row for row in rows)
    return (
        f"Measured on {results['date']}: {environment['processor']}, {environment['threads']} threads, torch "
        f"{environment['torch']}, headstart {environment['headstart']}; {len(rows)} recipes, of which {failed} ended in "
        f"an error (counted as nothing found). A recovered share is counted where at least {WORTH_RECOVERING:g} points "
        "were lost; a fault costs something if its share, or it alone, measures one point or more. An alarm is true of the data "
        "where new batch-norm statistics gain a point (10) or random features come within a point (20), by this benchmark's "
        "own probe."
    )


def _costly(faults: str) -> str:
    return f"{faults}: the same, where every fault in the pipeline costs a point"


def _of_kind(rows: Iterable[Row], kind: str) -> list[Row]:
    return [row for row in rows if row["kind"] == kind]


def _found(row: Row) -> list[int]:
    found: list[int] = row.get("found", [])
    return found


def _top_right(row: Row) -> bool:
    return row.get("top") in row["planted"]


def _all_found(row: Row) -> bool:
    return set(row["planted"]) <= set(_found(row))


def _costs(row: Row) -> bool:
    """Whether everything planted whose cost was measured costs a point, in its share or alone."""
    return all(
        max(values["points"], values.get("alone", values["points"])) >= LEAST_POINTS
        for values in row.get("measured", {}).values()
    )


def _true_of_the_data(row: Row) -> int:
    """How many alarms are true although nothing was planted: new batch-norm statistics gain a point (10), random features
    come within a point of the pretrained ones (20)."""
    points = {cause: values["points"] for cause, values in row.get("unplanted", {}).items()}
    return int(points.get("10", 0.0) >= LEAST_POINTS) + int(points.get("20", LEAST_POINTS) < LEAST_POINTS)


def _lost(row: Row) -> float:
    if "error" in row or row["kind"] == "healthy":
        return 0.0
    return 100 * float(row["accuracy"]["healthy"] - row["accuracy"]["failing"])


def _gained(row: Row) -> float:
    """Recovered share of the lost points."""
    accuracy = row["accuracy"]
    return float(accuracy["after_repair"] - accuracy["failing"]) / float(accuracy["healthy"] - accuracy["failing"])


def _share_errors(rows: Iterable[Row]) -> list[float]:
    """Estimated minus measured points, absolute, of every planted cause that was given points."""
    errors = []
    for row in rows:
        for cause, values in row.get("measured", {}).items():
            said = row["causes"].get(cause, {}).get("points")
            if said is not None:
                errors.append(abs(said["mean"] - values["points"]))
    return errors


def _line(question: str, bar: str, rows: list[Row], right: Callable[[Row], bool]) -> str:
    return _counted(question, bar, sum(right(row) for row in rows), len(rows), "recipes")


def _counted(question: str, bar: str, count: int, total: int, unit: str) -> str:
    return f"| {question} | {bar} | {_proportion(count, total)} | {count} of {total} {unit} |"


def _proportion(count: int, total: int) -> str:
    return _percent(wilson(count, total)) if total else "none"


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.mean:.1f}% [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _mean(values: list[float], unit: str) -> str:
    if not values:
        return "none"
    estimate = mean_estimate(np.asarray(values)[None])
    return f"{estimate.mean:.1f}{unit} [{estimate.low:.1f}, {estimate.high:.1f}]"


def _recovered(rows: list[Row]) -> str:
    """All points gained over all points lost; percentile bootstrap over recipes."""
    if not rows:
        return "none"
    lost = np.asarray([_lost(row) for row in rows])
    gained = np.asarray([_gained(row) for row in rows]) * lost
    drawn = generator(0, "recovered").integers(0, len(rows), (_RESAMPLES, len(rows)))
    shares = gained[drawn].sum(1) / lost[drawn].sum(1)
    low, high = np.percentile(shares, [2.5, 97.5])
    return f"{100 * gained.sum() / lost.sum():.1f}% [{100 * low:.1f}, {100 * high:.1f}]"


def _seconds(rows: Iterable[Row]) -> str:
    values = [row["seconds"] for row in rows if "seconds" in row]
    return f"{np.median(values):.1f} ({np.quantile(values, 0.9):.1f})" if values else "none"


if __name__ == "__main__":
    main()
