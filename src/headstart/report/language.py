"""What users read, in their language: texts from `text/*.toml`, and numbers written the way that language writes them."""

import datetime
import os
import string
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from headstart.errors import UsageError
from headstart.report.document import Inline, Span, plain

LANGUAGES = ("en", "es")

_SPACE = "\u00a0"  # no line break between a number and its unit
_MINUS = "\u2212"

# English groups thousands with a comma. Spanish groups with a space and only from five digits on (Real Academia
# Española, Ortografía de la lengua española, 2010), which every Spanish-speaking country reads alike.
_GROUP = {"en": ",", "es": _SPACE}
_GROUP_FROM = {"en": 1000, "es": 10_000}
_DECIMAL = {"en": ".", "es": ","}
_LIST_SEPARATOR = {"en": ", ", "es": "; "}
_BEFORE_PERCENT = {"en": "", "es": _SPACE}

_LOCALE_VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")  # POSIX: the first that is set decides


def resolve_language(requested: str | None) -> str:
    """Decide the language: what was asked for, otherwise the locale's, otherwise English.

    Args:
        requested: `en` or `es` (a locale such as `es_MX.UTF-8` will do); `None` asks the environment.

    Returns:
        `en` or `es`.

    Raises:
        UsageError: a language was asked for that there are no texts in.
    """
    if requested is not None:
        language = _language_of(requested)
        if language not in LANGUAGES:
            raise UsageError(f"There is no report in language {requested!r}; choose one of {', '.join(LANGUAGES)}.")
        return language
    for variable in _LOCALE_VARIABLES:
        if value := os.environ.get(variable):
            language = _language_of(value)
            return language if language in LANGUAGES else "en"
    return "en"


def written_moment(created: str) -> str:
    """Write an ISO 8601 moment as date and time in UTC, which reads alike in every language.

    >>> written_moment("2026-03-02T10:41:07+01:00")
    '2026-03-02 09:41 UTC'
    """
    moment = datetime.datetime.fromisoformat(created)
    if moment.tzinfo is not None:
        moment = moment.astimezone(datetime.UTC)
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def compare_languages() -> list[str]:
    """Compare the keys and placeholders of every text in both languages.

    Returns:
        One line per difference; empty if a text in one language can stand for the text in the other.
    """
    english, spanish = _load("en"), _load("es")
    differences = [f"{key}: only in en" for key in english.keys() - spanish.keys()]
    differences += [f"{key}: only in es" for key in spanish.keys() - english.keys()]
    for key in english.keys() & spanish.keys():
        ours, theirs = _placeholders(english[key]), _placeholders(spanish[key])
        if ours != theirs:
            differences.append(f"{key}: placeholders {sorted(ours)} in en, {sorted(theirs)} in es")
    return sorted(differences)


class Texts:
    """Every text of one language, by its key `section.name`, and that language's way of writing numbers.

    Args:
        language: `en` or `es`.

    Raises:
        UsageError: there are no texts in that language.
    """

    def __init__(self, language: str) -> None:
        self.language = resolve_language(language)
        self._texts = _load(self.language)

    def get(self, key: str, **values: str) -> str:
        """Return a text with its placeholders filled in.

        Raises:
            LookupError: there is no such text, or a placeholder has no value; the message names both.
        """
        template = self._template(key)
        try:
            return template.format(**values)
        except KeyError as error:
            raise LookupError(f"Text {key!r} ({self.language}) needs a value for {error}.") from error

    def rich(self, key: str, **values: Inline | str) -> Inline:
        """Like `get`, but a value may be emphasised or code, and the result says which part is."""
        spans: list[Span] = []
        for literal, name, _, _ in string.Formatter().parse(self._template(key)):
            if literal:
                spans.append(Span(literal))
            if name is not None:
                if name not in values:
                    raise LookupError(f"Text {key!r} ({self.language}) needs a value for {name!r}.")
                value = values[name]
                spans += plain(value) if isinstance(value, str) else value
        return tuple(spans)

    def has(self, key: str) -> bool:
        """Whether there is a text of this key."""
        return key in self._texts

    def keys(self, section: str) -> list[str]:
        """The keys of every text of a section."""
        return [key for key in self._texts if key.startswith(f"{section}.")]

    def placeholders(self, key: str) -> set[str]:
        """The names of the values that a text needs."""
        return _placeholders(self._template(key))

    def named(self, section: str, code: str) -> str:
        """Return the text of a code, or the code itself if it is newer than these texts."""
        key = f"{section}.{code}"
        return self._texts.get(key, code)

    def many(self, key: str, number: int) -> str:
        """Return a count with its noun, such as "1 seed" or "3 seeds" (keys `<key>_one` and `<key>_other`)."""
        return self.get(f"{key}_one" if number == 1 else f"{key}_other", n=self.count(number))

    def decimal(self, value: float, digits: int = 2) -> str:
        """Write a number with a fixed count of decimals.

        >>> Texts("en").decimal(-1234.5, 1), Texts("es").decimal(0.5, 1)
        ('−1,234.5', '0,5')
        """
        rounded = round(abs(value), digits)
        whole, _, fraction = f"{rounded:.{digits}f}".partition(".")
        if int(whole) >= _GROUP_FROM[self.language]:
            whole = f"{int(whole):,}".replace(",", _GROUP[self.language])
        sign = _MINUS if value < 0 and rounded > 0 else ""
        return sign + whole + (_DECIMAL[self.language] + fraction if fraction else "")

    def count(self, number: int) -> str:
        """Write a whole number with its thousands grouped."""
        return self.decimal(number, 0)

    def percent(self, share: float, digits: int = 1) -> str:
        """Write a share of one as a percentage: 0.71 is "71.0%", in Spanish "71,0 %"."""
        return self.decimal(100 * share, digits) + _BEFORE_PERCENT[self.language] + "%"

    def points(self, difference: float, digits: int = 1) -> str:
        """Write a difference of two shares with its sign, in points: 0.151 is "+15.1 points"."""
        return self.get("units.points", n=self.signed_points(difference, digits))

    def signed_points(self, difference: float, digits: int = 1) -> str:
        """Write a difference of two shares with its sign, for a column of points: 0.151 is "+15.1"."""
        written = self.decimal(100 * difference, digits)
        return f"+{written}" if round(100 * difference, digits) > 0 else written

    def gap(self, difference: float, digits: int = 1) -> str:
        """Write the size of a difference without a plus sign: "15.1 points"."""
        return self.get("units.points", n=self.decimal(100 * difference, digits))

    def share_interval(self, estimate: Mapping[str, Any]) -> str:
        """Write an estimate of a share: "86.1% [85.3, 86.9]"; without an interval if it has none."""
        ends = [self.decimal(100 * estimate[end], 1) for end in ("low", "high")]
        return self.percent(estimate["mean"]) + self._ends(estimate, ends)

    def difference_interval(self, estimate: Mapping[str, Any]) -> str:
        """Write an estimate of a difference: "+15.1 points [+14.2, +16.0]"."""
        ends = [self.signed_points(estimate[end]) for end in ("low", "high")]
        return self.points(estimate["mean"]) + self._ends(estimate, ends)

    def p_value(self, p: float) -> str:
        """Write a p value: "p = 0.012", or "p < 0.001" below that."""
        if p < 0.001:
            return f"p{_SPACE}<{_SPACE}{self.decimal(0.001, 3)}"
        return f"p{_SPACE}={_SPACE}{self.decimal(p, 3)}"

    def duration(self, seconds: float) -> str:
        """Write a duration with the units that suit its size: "0.42 s", "12.3 s", "3 min 20 s", "2 h 5 min"."""
        if seconds == 0:
            return f"0{_SPACE}s"
        if round(seconds, 1) < 60:
            return f"{self.decimal(seconds, 1 if seconds >= 1 else 2)}{_SPACE}s"
        whole = round(seconds)
        if whole < 3600:
            minutes, rest = divmod(whole, 60)
            return f"{minutes}{_SPACE}min" + (f" {rest}{_SPACE}s".replace(" ", _SPACE) if rest else "")
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{self.count(hours)}{_SPACE}h" + (f"{_SPACE}{minutes}{_SPACE}min" if minutes else "")

    def milliseconds(self, value: float) -> str:
        """Write a time given in milliseconds: "4.2 ms"."""
        return f"{self.decimal(value, 1 if value >= 1 else 2)}{_SPACE}ms"

    def bytes(self, number: int) -> str:
        """Write a size in decimal units: "9.1 MB"."""
        if number < 1000:
            return f"{number}{_SPACE}B"
        size = float(number)
        for unit in ("kB", "MB", "GB", "TB"):
            size /= 1000
            if size < 999.95 or unit == "TB":
                break
        return f"{self.decimal(size, 1)}{_SPACE}{unit}"

    def short_count(self, number: int) -> str:
        """Write a large number with an SI letter: 2,236,682 is "2.24 M"."""
        size, letter = float(number), ""
        for larger in ("k", "M", "G", "T"):
            if size < 999.5:
                break
            size, letter = size / 1000, larger
        return self.count(number) if not letter else f"{self.decimal(size, 2 if size < 10 else 1)}{_SPACE}{letter}"

    def quoted(self, english: str) -> str:
        """Return what a library said, in a report that is in English as it is; elsewhere nothing (results.json has it)."""
        return english if self.language == "en" else ""

    def listing(self, items: list[str]) -> str:
        """Join short items: with commas in English, with semicolons in Spanish (where a comma marks decimals)."""
        return _LIST_SEPARATOR[self.language].join(items)

    def _ends(self, estimate: Mapping[str, Any], ends: list[str]) -> str:
        if estimate.get("method") == "none":
            return ""
        return f" [{_LIST_SEPARATOR[self.language].join(ends)}]".replace("; ", f";{_SPACE}").replace(", ", f",{_SPACE}")

    def _template(self, key: str) -> str:
        if key not in self._texts:
            raise LookupError(f"report/text/{self.language}.toml has no text {key!r}.")
        return self._texts[key]


def _language_of(value: str) -> str:
    return value.split(".")[0].split("@")[0].replace("-", "_").split("_")[0].lower()


def _placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


@cache
def _load(language: str) -> dict[str, str]:
    """Read one language's file as `{"section.name": text}`."""
    content = resources.files("headstart.report").joinpath("text", f"{language}.toml").read_text(encoding="utf-8")
    return {
        f"{section}.{name}": text
        for section, entries in tomllib.loads(content).items()
        for name, text in entries.items()
    }
