"""Write the table of docs/diagnosis.md from what benchmarks/diagnosis/run.py measured.

    python benchmarks/diagnosis/table.py [--results FILE ...] [--part report|tune|all]

`--part tune` prints what thresholds may be chosen by, the list of misses and false alarms included; look at nothing else
meanwhile. `--part report` prints the same of the other half, and puts it between the markers `<!-- diagnosis-bench -->` and
`<!-- end -->` of docs/diagnosis.md, the tuned half beside it where it was run: run.py ends with that, too. `all` prints both as
one. Without --results both parts' files in benchmarks/results/ are read, as far as they are there.

Proportions have Wilson's intervals; means and the recovered share have bootstrap intervals over recipes.

Where the images cannot tell two causes apart the diagnosis names both, and both count as named: a planted cause is found if it
is one of them, and the top cause is right if the planted one is among those tied with the top. A line of its own counts such ties
as wrong. A false alarm is a check that proves or suspects what was not planted; on a faulty recipe, a cause that is no such tie
of a planted one.
"""

import argparse
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cases import TUNED, all_cases
from pages import put
from rows import DOCS, Files, Row, files_of, measured_files, rows_of

from headstart.analysis.diagnosis import CATALOGUE, LEAST_POINTS
from headstart.analysis.statistics import Estimate, mean_estimate, wilson
from headstart.randomness import generator

WORTH_RECOVERING = 3.0
"""Points: below it, the share that was recovered is mostly the noise of the test images."""

_RECOVERED = 0.9
_RESAMPLES = 2000
Cell = tuple[str, str]  # the result, and of how many


@dataclass(frozen=True)
class Line:
    """A question to the rows of a part, with the bar that was set for it before anything was run."""

    question: str
    bar: str
    answer: Callable[[list[Row]], Cell]


def main() -> None:
    """Print the tables of a part, and write those of `report` into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, nargs="+", default=measured_files())
    parser.add_argument("--part", choices=("report", "tune", "all"), default="report")
    arguments = parser.parse_args()
    files = files_of(arguments.results)
    print(tables(files, arguments.part))
    if arguments.part == "report":
        write_tables(files)


def write_tables(files: Files, docs: Path = DOCS) -> None:
    """Put the tables of the part `report` into the page docs/diagnosis.md."""
    put(docs / "diagnosis.md", "diagnosis-bench", tables(files, "report"))


def tables(files: Files, part: str) -> str:
    """All tables of a part; those of `report` have the tuned half beside it where it was run."""
    rows = rows_of(files)
    chosen = [row for row in rows if part in (row["part"], "all")]
    if not chosen:
        raise SystemExit(f"No case of the part {part} in {', '.join(map(str, files)) or 'benchmarks/results'}.")
    parts = {part: chosen}
    tuned = [row for row in rows if row["part"] == "tune"]
    if part == "report" and tuned:
        parts["tune"] = tuned
    return "\n\n".join(
        [
            "### Networks that headstart knows",
            summary({part: _known(some, True) for part, some in parts.items()}),
            "### Networks that it does not know",
            summary({part: _known(some, False) for part, some in parts.items()}),
            f"### By cause ({part})",
            by_cause(chosen),
            f"### Every miss and false alarm ({part})",
            mistakes(chosen),
            machine(list(files.values()), parts),
        ]
    )


def summary(parts: dict[str, list[Row]]) -> str:
    """The questions, one line each, with a result for each part."""
    heads = " | ".join(f"{part} [95%] | of" for part in parts)
    rows = [f"| question | bar | {heads} |", "|---" * (2 + 2 * len(parts)) + "|"]
    for line in LINES:
        answers = [line.answer(some) for some in parts.values()]
        if any(result for result, _ in answers):
            cells = " | ".join(f"{result or 'none'} | {of}" for result, of in answers)
            rows.append(f"| {line.question} | {line.bar} | {cells} |")
    return "\n".join(rows)


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
        found = sum(any(cause in group for group in _named(row)) for row in planted)
        costs = [row["measured"][str(cause)]["points"] for row in planted if str(cause) in row.get("measured", {})]
        median = f"{statistics.median(costs):.1f}" if costs else ""
        lines.append(
            f"| {cause} {name} | {len(planted)} | {_proportion(found, len(planted))} | "
            f"{_proportion(sum(map(_top_right, alone)), len(alone))} | {median} |"
        )
    return "\n".join(lines)


def mistakes(rows: list[Row]) -> str:
    """Every case with something missed or falsely named: what was planted with its measured points, what was named."""
    lines = ["| case | planted: points | named: points | wrong |", "|---|---|---|---|"]
    for row in sorted(rows, key=lambda one: (one["kind"], one["name"])):
        if wrong := _wrong(row):
            planted = ", ".join(
                _with_points(cause, row.get("measured", {}).get(str(cause))) for cause in row["planted"]
            )
            lines.append(f"| {row['name']} | {planted or 'nothing'} | {_said(row)} | {wrong} |")
    return "\n".join(lines) if len(lines) > 2 else "None."


def machine(files: list[dict[str, Any]], parts: dict[str, list[Row]]) -> str:
    """When and on what it was measured, what failed, what is missing, and how things are counted."""
    rows = [row for some in parts.values() for row in some]
    every = [case for case in all_cases() if case.part in parts or "all" in parts]
    names = {row["name"] for row in rows}
    dates = " and ".join(sorted({row["date"] for row in rows}))
    where = {
        (
            results["environment"]["processor"],
            results.get("jobs", 1),
            results["environment"]["cores"],
            results["environment"]["torch"],
            results["environment"]["headstart"],
        )
        for results in files
        if not names.isdisjoint(results["cases"])
    }
    measured = "; ".join(
        f"{processor}, {jobs} recipes at a time on {cores} cores, torch {torch}, headstart {version}"
        for processor, jobs, cores, torch, version in sorted(where)
    )
    codes = sorted({str(row.get("code")) for row in rows})
    code = f"code {codes[0]}" if len(codes) == 1 else f"code of {len(codes)} versions ({', '.join(codes)})"
    left = len(every) - sum(case.name in names for case in every)
    strange = len(names - {case.name for case in every})
    return (
        f"Measured on {dates}: {measured}; {code}; {len(rows)} recipes, of which {sum('error' in row for row in rows)} ended in an "
        f"error (counted as nothing found); {left} of {len(every)} were not run"
        + (f"; {strange} are no cases any more" if strange else "")
        + ". Of networks that their author has trained further no shares are counted, and of repairs those of the training (11) "
        "alone. Where the images cannot tell two causes apart both are named, and both count as named. A recovered share is "
        f"counted where at least {WORTH_RECOVERING:g} points were lost; a fault costs something if its share, or it alone, "
        "measures one point or more. An alarm is true of the data where new batch-norm statistics gain a point (10), a head on "
        "the network before its fine-tuning does (11), random features come within a point (20) or a head fitted anew gains one"
        " (21), by this benchmark's own probe. The intervals of checks take them for independent, which checks of one recipe "
        "are not; that of the recipes with an alarm does not need it. A measured share has an error of its own, so that fewer "
        "than 95% of the intervals can be expected to hold it."
    )


def _checks(rows: list[Row], alarms: Callable[[Row], int]) -> Cell:
    healthy = _of_kind(rows, "healthy")
    total = sum(row.get("checks", 0) for row in healthy)
    return _cell(sum(alarms(row) for row in healthy), total, "checks")


def _share(kinds: tuple[str, ...], right: Callable[[Row], bool], which: Callable[[Row], bool] | None = None) -> Any:
    """The answer for the recipes of some kinds, of those only that are meant."""

    def answer(rows: list[Row]) -> Cell:
        chosen = [row for row in _of_kind(rows, *kinds) if which is None or which(row)]
        return _cell(sum(right(row) for row in chosen), len(chosen), "recipes")

    return answer


def _of_kind(rows: Iterable[Row], *kinds: str) -> list[Row]:
    return [row for row in rows if row["kind"] in kinds]


def _known(rows: Iterable[Row], known: bool) -> list[Row]:
    return [row for row in rows if (row["network"] == "as-published") == known]


def _found(row: Row) -> list[int]:
    found: list[int] = row.get("found", [])
    return found


def _named(row: Row) -> list[set[int]]:
    """What was named, in its order: each cause with those that the images cannot tell it from."""
    return [{cause, *row["causes"][str(cause)]["like"]} for cause in _found(row)]


def _proved(row: Row) -> list[int]:
    return [cause for cause in _found(row) if row["causes"][str(cause)]["status"] == "proved"]


def _top_right(row: Row) -> bool:
    named = _named(row)
    return bool(named) and not named[0].isdisjoint(row["planted"])


def _top_alone_right(row: Row) -> bool:
    """The same where a tie with what was not planted is wrong."""
    named = _named(row)
    return bool(named) and named[0] <= set(row["planted"])


def _all_found(row: Row) -> bool:
    return not _missed(row)


def _missed(row: Row) -> set[int]:
    return set(row["planted"]).difference(*_named(row))


def _strange(row: Row) -> list[int]:
    """Causes named that were not planted, nor are tied with a planted one."""
    planted = set(row["planted"])
    return [cause for cause, group in zip(_found(row), _named(row), strict=True) if group.isdisjoint(planted)]


def _costs(row: Row) -> bool:
    """Whether everything planted whose cost was measured costs a point, in its share or alone."""
    return "error" in row or all(
        max(values["points"], values.get("alone", values["points"])) >= LEAST_POINTS
        for values in row.get("measured", {}).values()
    )


def _true_of_the_data(row: Row) -> set[int]:
    """Alarms that are true although nothing was planted: new batch-norm statistics gain a point (10), a head on the network before
    its fine-tuning does (11), random features come within a point of the pretrained ones (20), a head fitted anew gains one (21)."""
    points = {cause: values["points"] for cause, values in row.get("unplanted", {}).items()}
    return {
        cause
        for cause, true in (
            (10, points.get("10", 0.0) >= LEAST_POINTS),
            (11, points.get("11", 0.0) >= LEAST_POINTS),
            (20, points.get("20", LEAST_POINTS) < LEAST_POINTS),
            (21, points.get("21", 0.0) >= LEAST_POINTS),
        )
        if true
    }


def _lost(row: Row) -> float:
    if "error" in row or row["kind"] == "healthy":
        return 0.0
    return 100 * float(row["accuracy"]["healthy"] - row["accuracy"]["failing"])


def _gained(row: Row) -> float:
    """Recovered share of the lost points."""
    accuracy = row["accuracy"]
    return float(accuracy["after_repair"] - accuracy["failing"]) / float(accuracy["healthy"] - accuracy["failing"])


def _worth(row: Row) -> bool:
    return _lost(row) >= WORTH_RECOVERING and "after_repair" in row["accuracy"]


def _shares(rows: Iterable[Row]) -> list[tuple[dict[str, float] | None, float]]:
    """Of every planted cause whose cost was measured: the said share (its own, or that of the cause it is tied with; `None`
    where nobody gave it points), and the measured one. Networks that their author has trained further are left out: their faults are
    measured on the published weights, and what the diagnosis says is of theirs."""
    shares: list[tuple[dict[str, float] | None, float]] = []
    for row in (row for row in rows if row["evidence"] != TUNED):
        for cause, values in row.get("measured", {}).items():
            tied = row["causes"][cause]["like"]
            said = [row["causes"][str(one)]["points"] for one in (cause, *tied) if str(one) in row["causes"]]
            shares.append((next((points for points in said if points is not None), None), values["points"]))
    return shares


def _errors(rows: list[Row]) -> Cell:
    shares = _shares(rows)
    errors = [abs(said["mean"] - measured) for said, measured in shares if said is not None]
    if not errors:
        return "", ""
    estimate = mean_estimate(np.asarray(errors)[None])
    spread = f"median {np.median(errors):.1f}, nine of ten below {np.quantile(errors, 0.9):.1f}"
    return (
        f"{estimate.mean:.1f} points [{estimate.low:.1f}, {estimate.high:.1f}]; {spread}",
        f"{len(errors)} of {len(shares)} measured shares",
    )


def _covered(rows: list[Row]) -> Cell:
    shares = [(said, measured) for said, measured in _shares(rows) if said is not None]
    return _cell(sum(said["low"] <= measured <= said["high"] for said, measured in shares), len(shares), "shares")


def _recovered(rows: list[Row]) -> Cell:
    """All points gained over all points lost; percentile bootstrap over recipes."""
    rows = [row for row in rows if _worth(row)]
    if not rows:
        return "", ""
    lost = np.asarray([_lost(row) for row in rows])
    gained = np.asarray([_gained(row) for row in rows]) * lost
    drawn = generator(0, "recovered").integers(0, len(rows), (_RESAMPLES, len(rows)))
    low, high = np.percentile(gained[drawn].sum(1) / lost[drawn].sum(1), [2.5, 97.5])
    return f"{100 * gained.sum() / lost.sum():.1f}% [{100 * low:.1f}, {100 * high:.1f}]", f"{len(rows)} recipes"


def _seconds(rows: list[Row]) -> Cell:
    values = [row["seconds"] for row in rows if "seconds" in row]
    if not values:
        return "", ""
    return f"{np.median(values):.1f} ({np.quantile(values, 0.9):.1f})", f"{len(values)} recipes"


def _costly(faults: str) -> str:
    return f"{faults}: the same, where every fault in the pipeline costs a point"


_FAULTY = ("single", "pair")
LINES = (
    Line("one fault: the top cause named is the planted one", "95%", _share(("single",), _top_right)),
    Line(_costly("one fault"), "95%", _share(("single",), _top_right, _costs)),
    Line("one fault: named on top, and told from every other cause", "", _share(("single",), _top_alone_right)),
    Line("two faults: the top cause named is one of them", "", _share(("pair",), _top_right)),
    Line("two faults: both are found", "85%", _share(("pair",), _all_found)),
    Line(_costly("two faults"), "85%", _share(("pair",), _all_found, _costs)),
    Line(
        "healthy recipes: checks that raise a false alarm",
        "2%",
        lambda rows: _checks(rows, lambda row: len(_found(row))),
    ),
    Line(
        "the same, without what this benchmark measures to be true",
        "2%",
        lambda rows: _checks(rows, lambda row: len(set(_found(row)) - _true_of_the_data(row))),
    ),
    Line("the same, proved ones alone", "", lambda rows: _checks(rows, lambda row: len(_proved(row)))),
    Line("healthy recipes with a false alarm", "", _share(("healthy",), lambda row: bool(_found(row)))),
    Line(
        "faulty recipes with a cause named that was not planted", "", _share(_FAULTY, lambda row: bool(_strange(row)))
    ),
    Line("lost points that the repair recovers, all together", "90%", _recovered),
    Line(
        "recipes that recover 90% of their lost points",
        "",
        _share(_FAULTY, lambda row: _gained(row) >= _RECOVERED, _worth),
    ),
    Line("error of a cause's share, absolute, mean", "", _errors),
    Line("measured shares inside the said 95% interval", "", _covered),
    Line("seconds per diagnosis: median (nine of ten below)", "", _seconds),
)


def _wrong(row: Row) -> str:
    """What is wrong with a row, in words; empty where nothing is."""
    if "error" in row:
        return f"error: {row['error'].splitlines()[0][:120]}"
    said = []
    if missed := sorted(_missed(row)):
        said.append(f"missed {', '.join(map(str, missed))}" + ("" if _costs(row) else " (costs less than a point)"))
    elif row["kind"] == "single" and not _top_right(row):
        said.append("found, but not on top")
    if strange := _strange(row):
        true = _true_of_the_data(row)
        marked = [f"{cause} (true of the data)" if cause in true else str(cause) for cause in strange]
        said.append(f"false alarm {', '.join(marked)}")
    if _worth(row) and _gained(row) < _RECOVERED:
        said.append(f"recovers {100 * _gained(row):.0f}% of {_lost(row):.1f} points")
    return "; ".join(said)


def _said(row: Row) -> str:
    """What was named: suspicions with a question mark, ties with an equals sign."""
    parts = []
    for cause, group in zip(_found(row), _named(row), strict=True):
        known = row["causes"][str(cause)]
        ties = "".join(f"={other}" for other in sorted(group - {cause}))
        parts.append(_with_points(f"{cause}{ties}", known["points"]) + ("" if known["status"] == "proved" else "?"))
    return ", ".join(parts) or "nothing"


def _with_points(cause: int | str, values: dict[str, Any] | None) -> str:
    points = None if values is None else values.get("points", values.get("mean"))
    return str(cause) if points is None else f"{cause}: {points:.1f}"


def _cell(count: int, total: int, unit: str) -> Cell:
    return (_proportion(count, total), f"{count} of {total} {unit}") if total else ("", "")


def _proportion(count: int, total: int) -> str:
    return _percent(wilson(count, total)) if total else "none"


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.mean:.1f}% [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


if __name__ == "__main__":
    main()
