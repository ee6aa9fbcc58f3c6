"""Reliability diagrams: how often a prediction made with some confidence is right."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.report.figures.canvas import FAINT, SERIES, Canvas, shortened
from headstart.report.figures.marks import share_axis
from headstart.report.language import Texts

_WIDTH = 720.0
_COLUMNS = 3
_SIDE = 168.0


def reliability_diagrams(recipes: Sequence[dict[str, Any]], texts: Texts) -> str:
    """Draw accuracy against confidence for each recipe; the area of a mark grows with the images in its bin."""
    rows = -(-len(recipes) // _COLUMNS)
    step = _SIDE + 74
    canvas = Canvas("reliability", _WIDTH, rows * step)
    for index, recipe in enumerate(recipes):
        row, column = divmod(index, _COLUMNS)
        bottom = canvas.height - (row + 1) * step + 42
        axes = canvas.axes(54 + column * 236, bottom, _SIDE, _SIDE)
        canvas.heading(axes, shortened(recipe["name"], 26))
        share_axis(canvas, axes, texts, 0, 1, vertical=False)
        share_axis(canvas, axes, texts, 0, 1, vertical=True)
        axes.plot([0, 1], [0, 1], "--", color=FAINT, linewidth=1)
        bins = [entry for entry in recipe["reliability"] if entry["count"]]
        total = sum(entry["count"] for entry in bins) or 1
        x = [entry["confidence"] for entry in bins]
        y = [entry["accuracy"] for entry in bins]
        areas = [12 + 170 * entry["count"] / total for entry in bins]
        color = FAINT if recipe["control"] else SERIES[0]
        axes.plot(x, y, "-", color=color, linewidth=1.2)
        axes.scatter(x, y, s=np.array(areas), color=color, linewidths=0, clip_on=False, zorder=3)
        canvas.title_x(axes, texts.get("figures.confidence"))
        if column == 0:
            canvas.write(
                canvas.page(),
                12,
                bottom + _SIDE / 2,
                texts.get("figures.accuracy"),
                rotation=90,
                ha="center",
                color=FAINT,
                fontsize=9.5,
            )
    return canvas.finish()
