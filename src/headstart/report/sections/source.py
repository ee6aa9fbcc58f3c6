"""What every section reads: the results, the texts, the run's folder, and a few ways to look things up in them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.report.document import Inline, Picture, Span, code, plain
from headstart.report.language import Texts

_PNG = b"\x89PNG\r\n\x1a\n"
_IDENTITY_DIGITS = 12  # chosen: enough to find a trial's folder; the last section has all 64
_TRIALS_NAMED = 6


@dataclass(frozen=True)
class Source:
    """A run's results in a language.

    Attributes:
        results: the content of `results.json`.
        texts: of the report's language.
        folder: that the results' image paths are relative to.
    """

    results: dict[str, Any]
    texts: Texts
    folder: Path

    @property
    def recipes(self) -> list[dict[str, Any]]:
        """Every recipe that ran, controls included."""
        return list(self.results["recipes"])

    @property
    def contest(self) -> list[dict[str, Any]]:
        """The recipes that can win; if there is none, the controls."""
        return [recipe for recipe in self.recipes if not recipe["control"]] or self.recipes

    @property
    def best_first(self) -> list[dict[str, Any]]:
        """The recipes that can win, the recommended one first."""
        best = self.results["verdict"]["best"]
        return sorted(self.contest, key=lambda recipe: recipe["name"] != best)

    @property
    def confidence(self) -> str:
        """The study's confidence, such as "95%"."""
        share = self.results["study"]["confidence"]
        return self.texts.percent(share, 0 if abs(share * 100 - round(share * 100)) < 1e-9 else 1)

    def recipe(self, name: str | None) -> dict[str, Any] | None:
        """Return a recipe by name, `None` if it did not run."""
        return next((recipe for recipe in self.recipes if recipe["name"] == name), None)

    def pair(self, a: str | None, b: str | None) -> dict[str, Any] | None:
        """Return the comparison of two recipes as `a` minus `b`, whichever way round it is stored."""
        for entry in self.results["comparisons"]:
            if (entry["a"], entry["b"]) == (a, b):
                return dict(entry)
            if (entry["a"], entry["b"]) == (b, a):
                return _turned(entry)
        return None

    def trials_of(self, *names: str) -> Inline:
        """Name the trials that a claim was read from."""
        identities = [identity for name in names for identity in (self.recipe(name) or {"trials": []})["trials"]]
        if not identities:
            return ()
        shown: list[Span] = []
        for identity in identities[:_TRIALS_NAMED]:
            shown += [*plain(", "), *code(identity[:_IDENTITY_DIGITS])] if shown else code(identity[:_IDENTITY_DIGITS])
        if len(identities) > _TRIALS_NAMED:
            shown += plain(", …")
        return self.texts.rich("verdict.evidence_trials", trials=tuple(shown))

    def picture(self, path: str, alt: str, caption: Inline) -> Picture:
        """Read an image of the run; one that is missing, outside the folder or no PNG is shown by a note instead."""
        folder = self.folder.resolve()
        file = (folder / path).resolve()
        content = None
        if file.is_relative_to(folder) and file.is_file():
            content = file.read_bytes()
        if content is not None and not content.startswith(_PNG):
            content = None
        missing = self.texts.get("document.missing_image", path=path)
        return Picture(path, content, alt, caption, missing)

    def count_of_seeds(self, pair: dict[str, Any]) -> int:
        """Number of seeds behind a comparison."""
        seeds = pair["seeds"]
        return len(seeds) if isinstance(seeds, list) else int(seeds)


def _turned(entry: dict[str, Any]) -> dict[str, Any]:
    difference = entry["difference"]
    return {
        **entry,
        "a": entry["b"],
        "b": entry["a"],
        "difference": {
            **difference,
            "mean": -difference["mean"],
            "low": -difference["high"],
            "high": -difference["low"],
        },
        "mcnemar": [
            {
                **test,
                "seed_a": test["seed_b"],
                "seed_b": test["seed_a"],
                "only_a": test["only_b"],
                "only_b": test["only_a"],
            }
            for test in entry["mcnemar"]
        ],
        "verdict": {"better": "worse", "worse": "better"}.get(entry["verdict"], entry["verdict"]),
    }
