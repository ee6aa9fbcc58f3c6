"""Matplotlib figures as SVG that takes its colours from the page and lets the browser set the text.

Every text is drawn as a short ASCII token, placed by its anchor, and replaced by the real text afterwards. So no font has to
have the reader's alphabet, nothing is read as mathematics, and layout does not depend on the fonts of the machine that drew it.
"""

import html
import io
import re
import unicodedata
from contextlib import AbstractContextManager
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PLAIN_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 10.0,
    "text.parse_math": False,
    "text.usetex": False,
    "axes.unicode_minus": False,
    "axes.linewidth": 0.8,
}

# Stand-ins: matplotlib draws with these colours, and `finish` replaces each by a variable of the page. The value after the
# comma is what a stand-alone SVG shows. The series colours are Okabe and Ito's, safe for colour-blind readers
# (https://jfly.uni-koeln.de/color/); the page lightens them on a dark background.
INK, FAINT, GRID, HEAT, GOOD, BAD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
SERIES = tuple(f"#0a0a{index:02x}" for index in range(8))
_VARIABLES = {
    INK: "var(--ink, #1c2024)",
    FAINT: "var(--faint, #5c646c)",
    GRID: "var(--grid, #d5dade)",
    HEAT: "var(--heat, #3b82c4)",
    GOOD: "var(--good, #00795a)",
    BAD: "var(--bad, #b3440a)",
    **{
        sentinel: f"var(--series-{index + 1}, {fallback})"
        for index, (sentinel, fallback) in enumerate(
            zip(
                SERIES,
                ("#0072b2", "#d55e00", "#00795a", "#a3508a", "#b07d00", "#3f4c9a", "#7a5230", "#5c646c"),
                strict=True,
            )
        )
    },
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")

POINTS_PER_INCH = 72
_WIDTH_OF_COLUMN = 0.58  # of the font size, per character: measured on common sans-serif fonts, rounded up
_FONT_FAMILY = "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', sans-serif"


class Canvas:
    """One figure being drawn: a matplotlib `Figure` and the texts that its tokens stand for.

    Args:
        name: unique among a report's figures; every id in the SVG begins with it.
        width, height: in points (1/72 inch), which is what one CSS pixel shows at full width.
    """

    def __init__(self, name: str, width: float, height: float) -> None:
        self.name = name
        self.width = width
        self.height = height
        self._texts: list[str] = []
        with self._styled():
            self.figure = Figure(figsize=(width / POINTS_PER_INCH, height / POINTS_PER_INCH))
            self.figure.patch.set_visible(False)

    def axes(self, left: float, bottom: float, width: float, height: float, *, frame: bool = True) -> Axes:
        """Add axes whose data area has these bounds, in points from the lower left corner."""
        with self._styled():
            axes = self.figure.add_axes(
                (left / self.width, bottom / self.height, width / self.width, height / self.height)
            )
        axes.patch.set_visible(False)
        for side, spine in axes.spines.items():
            spine.set_color(FAINT)
            spine.set_visible(frame and side in ("left", "bottom"))
        axes.tick_params(colors=FAINT, labelcolor=INK, length=3, width=0.8)
        axes.minorticks_off()
        return axes

    def page(self) -> Axes:
        """Add invisible axes over the whole figure, whose data are points from the lower left corner."""
        page = self.axes(0, 0, self.width, self.height)
        page.set_axis_off()
        page.set_xlim(0, self.width)
        page.set_ylim(0, self.height)
        return page

    def token(self, text: str) -> str:
        """Return an ASCII stand-in for a text, to be given to matplotlib in its place."""
        self._texts.append(text)
        return f"Q{len(self._texts) - 1:04d}Q"

    def write(self, axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
        """Write a text at a point of the axes' data, anchored there (`ha`, `va`), in any rotation."""
        style = {"color": INK, "fontsize": 10, **style}
        axes.text(x, y, self.token(text), rotation_mode="anchor", clip_on=False, **style)

    def label_x(self, axes: Axes, positions: list[float], labels: list[str], **style: Any) -> None:
        """Set the ticks of the horizontal axis and their labels."""
        axes.set_xticks(positions, [self.token(label) for label in labels], **style)

    def label_y(self, axes: Axes, positions: list[float], labels: list[str], **style: Any) -> None:
        """Set the ticks of the vertical axis and their labels."""
        axes.set_yticks(positions, [self.token(label) for label in labels], **style)

    def title_x(self, axes: Axes, text: str) -> None:
        """Name the horizontal axis."""
        axes.set_xlabel(self.token(text), color=FAINT, fontsize=9.5)

    def heading(self, axes: Axes, text: str, points_above: float = 7) -> None:
        """Write a title flush left above the axes."""
        height = axes.get_position().height * self.height
        axes.text(
            0,
            1 + points_above / height,
            self.token(text),
            transform=axes.transAxes,
            color=INK,
            fontsize=10.5,
            weight="bold",
        )

    def finish(self) -> str:
        """Draw, and return one `<svg>` element without prolog, metadata or ids that another figure could have."""
        stream = io.StringIO()
        with self._styled():
            self.figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        svg = stream.getvalue()
        svg = svg[svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
        svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
        svg = self._own_ids(svg)
        for sentinel, variable in _VARIABLES.items():
            svg = svg.replace(sentinel, variable)
        svg = re.sub(r"'DejaVu Sans'[^;\"]*", _FONT_FAMILY, svg)
        svg = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", svg, count=1)
        svg = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", svg, count=1)
        svg = svg.replace("<svg ", f'<svg width="{self.width:g}" height="{self.height:g}" ', 1)
        return re.sub(r"Q(\d{4})Q", lambda match: html.escape(self._texts[int(match[1])]), svg).strip()

    def _styled(self) -> AbstractContextManager[None]:
        """The user's own matplotlib settings are put aside while we draw, and come back unchanged."""
        return matplotlib.style.context(["default", {**PLAIN_STYLE, "svg.hashsalt": self.name}])

    def _own_ids(self, svg: str) -> str:
        used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))
        svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{self.name}-{m[1]}"' if m[1] in used else "", svg)
        return re.sub(r'(url\(#|href="#)', rf"\g<1>{self.name}-", svg)


def columns(text: str) -> int:
    """Count a text's width in columns: wide characters (Chinese, Japanese, Korean, emoji) are two, combining ones none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def width_of(text: str, size: float = 10) -> float:
    """Estimate a text's width in points, never much too small."""
    return columns(text) * size * _WIDTH_OF_COLUMN


def shortened(text: str, limit: int) -> str:
    """Cut a text to so many columns, and put control characters and line breaks out of it.

    >>> shortened("a rather long name", 9), shortened("猫猫猫猫猫猫", 7)
    ('a rather…', '猫猫猫…')
    """
    clean = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if columns(clean) <= limit:
        return clean
    kept = ""
    for character in clean:
        if columns(kept + character) > limit - 1:
            break
        kept += character
    return kept + "…"


def series_style(index: int) -> tuple[str, str]:
    """Return colour and marker of the series of this number."""
    return SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
