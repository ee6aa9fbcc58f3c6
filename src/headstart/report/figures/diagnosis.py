"""The waterfall of a diagnosis: from the failing to the repaired accuracy, one bar for each cause."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from headstart.report.figures.canvas import BAD, FAINT, GOOD, HEAT, INK, Canvas, width_of
from headstart.report.figures.marks import names_width, row_axes, row_note, share_axis
from headstart.report.language import Texts

_WIDTH = 720.0
_LEAST_ROOM = 280.0  # points for the bars, whatever the labels take
_ROW = 30.0
_BAR = 0.56  # of a row
_LABEL_COLUMNS = 52  # chosen: the longest cause title in either language fits


class Step(NamedTuple):
    """One bar: from where to where (shares of one), and the ends of its interval if it has one."""

    start: float
    end: float
    low: float | None
    high: float | None


def waterfall_steps(record: Mapping[str, Any]) -> list[Step]:
    """Place the bars of a waterfall one after the other, from the failing accuracy on.

    Args:
        record: the content of `diagnosis.json`.
    """
    intervals = {cause["id"]: cause["points"] for cause in record["causes"]}
    steps, height = [], float(record["accuracy"]["failing"])
    for entry in record["waterfall"]:
        points = intervals.get(entry["cause"]) if entry["cause"] is not None else None
        low, high = (None, None) if points is None else (height + points[end] / 100 for end in ("low", "high"))
        steps.append(Step(height, height + entry["points"] / 100, low, high))
        height += entry["points"] / 100
    return steps


def waterfall_figure(record: Mapping[str, Any], names: Sequence[str], notes: Sequence[str], texts: Texts) -> str:
    """Draw the waterfall with the failing accuracy at the top and the repaired one at the bottom.

    Args:
        record: the content of `diagnosis.json`, with a waterfall and a repaired accuracy.
        names, notes: of the waterfall's entries: what stands at the left and at the right of each bar.
        texts: of the report's language.
    """
    accuracy = record["accuracy"]
    steps = waterfall_steps(record)
    labels = [texts.get("figures.waterfall_failing"), *names, texts.get("figures.waterfall_repaired")]
    beside = [texts.percent(accuracy["failing"]), *notes, texts.percent(accuracy["repaired"])]
    right = 14 + max(width_of(note, 9.5) for note in beside)
    wide = max(_WIDTH, names_width(labels, _LABEL_COLUMNS) + right + _LEAST_ROOM)
    canvas = Canvas("waterfall", wide, 50 + _ROW * len(labels))
    axes = row_axes(canvas, labels, right=right, bottom=40, row_height=_ROW, limit=_LABEL_COLUMNS)
    ends = [end for step in steps for end in step if end is not None] + [accuracy["failing"], accuracy["repaired"]]
    low, high = min(0.0, *ends), max(ends)
    share_axis(canvas, axes, texts, low - (0.03 if low < 0 else 0.0), high + 0.03, vertical=False)
    canvas.title_x(axes, texts.get("figures.waterfall_axis"))

    axes.barh([0.0], [accuracy["failing"]], height=_BAR, color=FAINT)
    axes.barh([-len(labels) + 1.0], [accuracy["repaired"]], height=_BAR, color=GOOD)
    for row, (entry, step) in enumerate(zip(record["waterfall"], steps, strict=True), start=1):
        color = HEAT if entry["cause"] is not None and entry["points"] >= 0 else BAD
        rest = entry["cause"] is None
        axes.barh(
            [-float(row)],
            [step.end - step.start],
            left=[step.start],
            height=_BAR,
            color="none" if rest else color,
            edgecolor=FAINT if rest else color,
            linestyle="--" if rest else "-",
            linewidth=1.0,
        )
        if step.low is not None and step.high is not None:
            axes.plot([step.low, step.high], [-row, -row], "-", color=INK, linewidth=1.6, clip_on=False, zorder=3)
    reached = [accuracy["failing"], *(step.end for step in steps)]
    for row, height in enumerate(reached):  # a thin line takes the eye from the end of one bar to the start of the next
        axes.plot([height, height], [-row, -row - 1], "-", color=FAINT, linewidth=0.8, zorder=1)
    for row, note in enumerate(beside):
        row_note(canvas, axes, row, note)
    return canvas.finish()
