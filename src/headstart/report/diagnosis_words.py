"""A diagnosis in words: the verdict's sentence, the evidence of a cause, a repair; from the codes and values of `diagnosis.json`."""

from collections.abc import Mapping
from typing import Any

from headstart.analysis.diagnosis import OF_PIXELS
from headstart.report.document import Inline, code, plain, plain_text, strong
from headstart.report.language import Texts

CONFIDENCE = 0.95
"""Of every interval in `diagnosis.json`."""

_SHARES = frozenset(
    {
        "share",
        "accuracy",
        "permuted",
        "probe",
        "random",
        "scratch",
        "fair",
        "head",
        "train",
        "val",
        "fit",
        "serving",
        "without",
        "own",
    }
)  # of one, written as percentages
_INTERPOLATIONS = frozenset({"found", "expected", "interpolation"})  # texts `diagnosis_interpolation`
_DIGITS = 3  # chosen: significant digits of a pixel value, a loss or a distance
_SMALLEST = 1e-4  # chosen: what is smaller is only said to be smaller
_SAID_OF = {"suspected-only": "suspected", "domain-gap": "suspected"}  # the status of the causes that a verdict names
_DIFFERENCES = frozenset({"difference"})  # of two shares, with its interval
_MENDED_BY_A_PROBE = {*range(1, 6), *range(7, 14), 21, 22}  # as diagnosis/judging.py repairs somebody's own network
_FINE_TUNING, _DOMAIN_GAP = 11, 20
_DOMAIN_GAPS = {
    "no-better-than-random": "",
    "features-at-chance": "-at-chance",
    "scratch-better": "-scratch",
}  # evidence, verdict's key
_CAUSES_NAMED = 4  # chosen: a sentence with more numbers is not read to its end

Record = Mapping[str, Any]


def diagnosis_statement(record: Record, texts: Texts) -> str:
    """Say the verdict of a diagnosis in one sentence.

    Args:
        record: the content of `diagnosis.json`; the statement that it holds is not read.
        texts: of the language to say it in.
    """
    return plain_text(rich_diagnosis_statement(record, texts))


def rich_diagnosis_statement(record: Record, texts: Texts) -> Inline:
    """Say the verdict of a diagnosis in one sentence, with the name of what was diagnosed emphasised."""
    verdict, accuracy = record["verdict"]["code"], record["accuracy"]
    values: dict[str, Inline | str] = {
        "name": strong(record["subject"]["name"]),
        "failing": texts.percent(accuracy["failing"]),
        "cleared": texts.count(len(of_status(record, "cleared"))),
        "unseen": texts.count(len(of_status(record, "could-not-look"))),
        "total": texts.count(len(record["causes"])),
        "causes": texts.listing([lost_to(cause, texts) for cause in of_status(record, _SAID_OF.get(verdict, verdict))]),
    }
    if accuracy["repaired"] is not None:
        values["repaired"] = texts.percent(accuracy["repaired"])
    if verdict == "proved":
        said = _proved(record, texts, values)
    elif verdict == "domain-gap":
        said = _domain_gap(record, texts, values)
    else:
        curve = verdict == "nothing-seen" and record["subject"]["kind"] == "history"
        said = texts.rich(f"diagnosis_verdict.{verdict}{'-curve' if curve else ''}", **values)
    return said + _alike(record, _SAID_OF.get(verdict, verdict), texts) + _still_suspected(record, texts)


def drawn_test_note(record: Record, texts: Texts) -> str:
    """Warn that somebody's own network may have learned the test images; empty where they are the data's own, or nothing says."""
    drawn = record["data"].get("test_drawn", False) and record["subject"]["kind"] not in ("recipe", "history")
    return texts.get("diagnosis.test_drawn") if drawn else ""


def of_status(record: Record, *statuses: str) -> list[dict[str, Any]]:
    """The causes of these statuses, by weight."""
    return [cause for cause in record["causes"] if cause["status"] in statuses]


def cause_title(record: Record, number: int, texts: Texts) -> str:
    """Name a cause by its number; one that the record does not list is named by the number."""
    name = next((cause["name"] for cause in record["causes"] if cause["id"] == number), str(number))
    return texts.named("diagnosis_cause", name)


def lost_to(cause: Record, texts: Texts) -> str:
    """Name a cause as what points are lost to: "the input size"."""
    return texts.named("diagnosis_lost_to", cause["name"])


def evidence(cause: Record, texts: Texts, record: Record | None = None) -> Inline:
    """Say what was seen of a cause, what its repair brought where it was cleared so, and what else it could be.

    Args:
        cause: out of a record's causes.
        texts: of the language.
        record: names the causes that it could also be; without it they are left out.
    """
    said = coded("diagnosis_evidence", cause["evidence"], texts)
    alone = cause.get("points_alone")
    if cause["status"] in ("cleared", "suspected") and cause["points"] is not None:
        brought = {"points": texts.difference_interval(as_shares(cause["points"]))}
        if alone is not None:
            brought["alone"] = texts.difference_interval(as_shares(alone))
        key = _tried(cause, record, texts)
        said += plain(" ") + texts.rich(key, **{name: brought[name] for name in texts.placeholders(key)})
    if (
        cause["status"] == "proved"
        and alone is not None
        and cause["points"] is not None
        and cause["points"]["low"] <= 0
    ):
        cost = f"{texts.decimal(alone['mean'], 1)} {bare_interval(alone, texts)}"
        said += plain(" ") + texts.rich("diagnosis.left_alone", points=cost)
    if cause["indistinguishable_from"] and record is not None:
        others = texts.listing([cause_title(record, number, texts) for number in cause["indistinguishable_from"]])
        said += plain(" ") + texts.rich("diagnosis.indistinguishable", causes=others)
    return said


def _tried(cause: Record, record: Record | None, texts: Texts) -> str:
    """The key of what to say of a repair that was tried and proved nothing."""
    key = f"diagnosis.{cause['status']}_points"
    if cause["status"] == "suspected":
        if texts.has(own := f"{key}_{cause['name']}"):
            return own
        if record is not None and record["subject"].get("trained_further") and cause["id"] in OF_PIXELS:
            return f"{key}_trained_further"
        if cause.get("points_alone") not in (None, cause["points"]):
            return f"{key}_in_orders"
    return key


def coded(section: str, entry: Record, texts: Texts) -> Inline:
    """Write `{"code", "values"}` as the text of its code; a code newer than these texts is shown as it is."""
    key = f"{section}.{entry['code']}"
    if not texts.has(key):
        return code(entry["code"])
    values = {name: written(name, value, texts) for name, value in entry["values"].items()}
    missing = {name: plain(texts.get("diagnosis.unknown")) for name in texts.placeholders(key) - values.keys()}
    return texts.rich(key, **values, **missing)


def written(name: str, value: Any, texts: Texts) -> Inline:
    """Write one measured value, by its name and type."""
    if value is None:
        return plain(texts.get("diagnosis.unknown"))
    if isinstance(value, Mapping):
        return plain(texts.difference_interval(value) if name in _DIFFERENCES else texts.share_interval(value))
    if isinstance(value, list | tuple):
        return plain(texts.listing([plain_text(written(name, item, texts)) for item in value]))
    if isinstance(value, str):
        key = f"diagnosis_interpolation.{value}"
        return plain(texts.get(key)) if name in _INTERPOLATIONS and texts.has(key) else code(value)
    return plain(texts.percent(value) if name in _SHARES else number(value, texts))


def number(value: float, texts: Texts) -> str:
    """Write a number with three significant digits, whole numbers whole.

    >>> number(-2.1179, Texts("en")), number(255.0, Texts("en")), number(0.48501, Texts("es"))
    ('−2.12', '255', '0,485')
    """
    if value == round(value):
        return texts.decimal(value, 0)
    if abs(value) < _SMALLEST:
        return f"<\u00a0{texts.decimal(_SMALLEST, 4)}"
    digits, exponent = f"{abs(value):.{_DIGITS - 1}e}".split("e")
    return texts.decimal(value, max(0, len(digits.replace(".", "").rstrip("0")) - 1 - int(exponent)))


def as_shares(points: Record) -> dict[str, float]:
    """Turn an interval of percentage points into one of shares, which is what the texts write."""
    return {end: points[end] / 100 for end in ("mean", "low", "high")}


def bare_interval(points: Record, texts: Texts) -> str:
    """Write the ends of an interval of points: "[50.1, 53.9]"."""
    ends = texts.listing([texts.decimal(points[end], 1) for end in ("low", "high")])
    return f"[{ends}]".replace(" ", "\u00a0")


def accuracy_interval(share: float | None, interval: Record | None, texts: Texts) -> str:
    """Write an accuracy with its interval if there is one."""
    if interval is not None:
        return texts.share_interval(interval)
    return texts.percent(share) if share is not None else texts.get("diagnosis.unknown")


def _proved(record: Record, texts: Texts, values: dict[str, Inline | str]) -> Inline:
    """Name what every proved cause costs, the largest first; what lies outside the two accuracies, apart from them."""
    proved = of_status(record, "proved")
    steps = {entry["cause"] for entry in record["waterfall"]}
    outside = [
        cause
        for cause in proved
        if cause["points"] is not None and (cause.get("apart", False) or (steps and cause["id"] not in steps))
    ]
    proved = [cause for cause in proved if cause not in outside]
    measured = [cause for cause in proved if cause["points"] is not None]
    others = [cause for cause in proved if cause["points"] is None]
    key = "diagnosis_verdict.proved-not-repaired"
    if "repaired" in values:
        key = "diagnosis_verdict.proved"
        if record["subject"]["kind"] != "recipe":
            probed = any(cause["id"] in _MENDED_BY_A_PROBE for cause in measured)
            suffix = "-by-probe" if probed else ""
            if any(cause["id"] == _FINE_TUNING for cause in measured):
                suffix = "-before-tuning"
            key = f"diagnosis_verdict.proved-module{suffix}"
    if measured:
        said = texts.rich(key, losses=_losses(measured, texts), **values)
    elif outside and not others:
        said = texts.rich("diagnosis_verdict.proved-outside", **values)
    else:
        said, others = texts.rich(f"{key}-without-points", **values), []
    if outside:
        key = "diagnosis.outside" if "repaired" in values else "diagnosis.outside_one"
        said += plain(" ") + texts.rich(key, losses=_losses(outside, texts), **values)
    if others:
        names = texts.listing([lost_to(cause, texts) for cause in others])
        said += plain(" ") + texts.rich("diagnosis.also_proved", causes=names)
    return said


def _domain_gap(record: Record, texts: Texts, values: dict[str, Inline | str]) -> Inline:
    """Say with its measured proof that nothing but the features is to blame, or perhaps the labels."""
    shown = next(cause for cause in record["causes"] if cause["id"] == _DOMAIN_GAP)["evidence"]
    key = f"diagnosis_verdict.domain-gap{_DOMAIN_GAPS[shown['code']]}"
    measured = {name: written(name, value, texts) for name, value in shown["values"].items()}
    return texts.rich(key, **{**values, **measured})


def _alike(record: Record, status: str, texts: Texts) -> Inline:
    """Name both, or all, of the causes that the data cannot tell apart; nothing where they could."""
    names = {cause["id"]: lost_to(cause, texts) for cause in record["causes"]}
    said, told = plain(""), set[frozenset[int]]()
    for cause in of_status(record, status):
        group = frozenset({cause["id"], *cause["indistinguishable_from"]})
        if len(group) > 1 and group not in told:
            told.add(group)
            others = [names.get(number, str(number)) for number in sorted(group - {cause["id"]})]
            either = f" {texts.get('diagnosis.or')} ".join([names[cause["id"]], *others])
            said += plain(" ") + texts.rich("diagnosis.verdict_alike", causes=either)
    return said


def _still_suspected(record: Record, texts: Texts) -> Inline:
    """Name what is suspected beside what the verdict says; nothing where the verdict is about the suspected ones."""
    if record["verdict"]["code"] in ("suspected-only", "domain-gap"):
        return plain("")
    proved = of_status(record, "proved")
    said = {number for cause in proved for number in cause["indistinguishable_from"]}
    explained = {cause["id"] for cause in proved}  # what looks like one of these needs no other cause
    names = [
        lost_to(cause, texts)
        for cause in of_status(record, "suspected")
        if cause["id"] not in said and not explained & set(cause["indistinguishable_from"])
    ]
    if not names:
        return plain("")
    return plain(" ") + texts.rich("diagnosis.still_suspected", causes=texts.listing(_shortened(names, texts)))


def _losses(causes: list[dict[str, Any]], texts: Texts) -> str:
    """List what causes cost, then what others had added without merit; no more than a sentence can bear."""
    lost = [cause for cause in causes if cause["points"]["mean"] >= 0]
    parts = [_loss(cause, "lost_next" if position else "lost_first", texts) for position, cause in enumerate(lost)]
    parts += [_loss(cause, "undeserved", texts) for cause in causes if cause["points"]["mean"] < 0]
    return texts.listing(_shortened(parts, texts))


def _shortened(parts: list[str], texts: Texts) -> list[str]:
    """The first of them, and how many more there are."""
    if len(parts) <= _CAUSES_NAMED:
        return parts
    more = texts.many("diagnosis.causes", len(parts) - _CAUSES_NAMED)
    return [*parts[:_CAUSES_NAMED], texts.get("diagnosis.more_causes", causes=more)]


def _loss(cause: Record, key: str, texts: Texts) -> str:
    points = cause["points"]
    if points["mean"] < 0:
        points = {"mean": -points["mean"], "low": -points["high"], "high": -points["low"]}
    said = texts.get(
        f"diagnosis.{key}",
        points=texts.decimal(points["mean"], 1),
        cause=lost_to(cause, texts),
        interval=bare_interval(points, texts),
    )
    # A share that another cause hides is told with what would be left of it.
    alone = cause.get("points_alone")
    if alone is None or points["low"] > 0:
        return said
    return f"{said} {texts.get('diagnosis.once_repaired', points=texts.decimal(alone['mean'], 1))}"
