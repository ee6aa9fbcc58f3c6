"""Marks that several figures share: legends, axes of shares, rows with names."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from headstart.report.figures.canvas import GRID, INK, Canvas, shortened, width_of
from headstart.report.language import Texts

NAME_COLUMNS = 26  # chosen: names longer than this are cut in figures; the tables have them whole


@dataclass(frozen=True)
class Key:
    """One entry of a legend: how it is drawn and what it means."""

    text: str
    color: str
    marker: str = ""
    line: str = ""
    hollow: bool = False


def legend_lines(keys: Sequence[Key], width: float) -> list[list[Key]]:
    """Break a legend into lines that fit a width in points."""
    lines: list[list[Key]] = [[]]
    used = 0.0
    for key in keys:
        needed = 36 + width_of(key.text)
        if lines[-1] and used + needed > width:
            lines.append([])
            used = 0.0
        lines[-1].append(key)
        used += needed
    return lines


def draw_legend(canvas: Canvas, lines: list[list[Key]], left: float, top: float) -> None:
    """Draw a legend's lines downwards from a point of the canvas, 16 points each."""
    page = canvas.page()
    for row, keys in enumerate(lines):
        x, y = left, top - 16 * row - 8
        for key in keys:
            face = "none" if key.hollow else key.color
            page.plot(
                [x, x + 9, x + 18] if key.line else [x + 9],
                [y] * (3 if key.line else 1),
                color=key.color,
                linestyle=key.line or "none",
                marker=key.marker or "none",
                markevery=[1] if key.line else None,
                markersize=6,
                markerfacecolor=face,
                linewidth=1.6,
            )
            canvas.write(page, x + 24, y, key.text, va="center", fontsize=9.5)
            x += 36 + width_of(key.text)


def share_axis(canvas: Canvas, axes: Axes, texts: Texts, low: float, high: float, *, vertical: bool) -> None:
    """Make one axis run from `low` to `high` (shares of one), with percentages for labels and a faint grid."""
    ticks = nice_ticks(low, high)
    labels = [texts.percent(tick, decimals_of([100 * one for one in ticks])) for tick in ticks]
    if vertical:
        axes.set_ylim(low, high)
        canvas.label_y(axes, ticks, labels, fontsize=9)
    else:
        axes.set_xlim(low, high)
        canvas.label_x(axes, ticks, labels, fontsize=9)
    axes.grid(visible=True, axis="y" if vertical else "x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Choose round values between two ends."""
    ticks = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in ticks if low - 1e-9 <= tick <= high + 1e-9]


def decimals_of(ticks: Sequence[float]) -> int:
    """The fewest decimals, at most four, that write every tick as it is.

    >>> decimals_of([0.0, 5.0]), decimals_of([0.0, 0.25, 0.5]), decimals_of([0.1, 0.2, 0.1 + 0.2])
    (0, 2, 1)
    """
    values = np.asarray(ticks, dtype=float)
    return next((digits for digits in range(4) if np.allclose(values, values.round(digits), rtol=0, atol=1e-6)), 4)


def row_axes(
    canvas: Canvas, names: Sequence[str], *, right: float, bottom: float, row_height: float, limit: int = NAME_COLUMNS
) -> Axes:
    """Add axes with one named row per item, the first at the top; rows lie at 0, -1, -2, ...

    Args:
        canvas: to draw on; its width is divided between names, rows and `right` points for what stands beside them.
        names: of the rows.
        right, bottom, row_height: in points.
        limit: columns of a name before it is cut.
    """
    shown = [shortened(name, limit) for name in names]
    left = names_width(names, limit)
    axes = canvas.axes(left, bottom, canvas.width - left - right, row_height * len(names))
    axes.set_ylim(-len(names) + 0.5, 0.5)
    canvas.label_y(axes, [-float(row) for row in range(len(names))], shown, fontsize=10)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return axes


def names_width(names: Sequence[str], limit: int = NAME_COLUMNS) -> float:
    """Points that a column of names takes."""
    return 16 + max((width_of(shortened(name, limit)) for name in names), default=0)


def row_note(canvas: Canvas, axes: Axes, row: int, text: str) -> None:
    """Write a note to the right of a row."""
    width = axes.get_position().width * canvas.width
    axes.text(
        1 + 8 / width,
        -float(row),
        canvas.token(text),
        transform=axes.get_yaxis_transform(),
        color=INK,
        fontsize=9.5,
        va="center",
        ha="left",
        clip_on=False,
    )
