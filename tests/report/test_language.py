"""Texts in both languages, and numbers as each language writes them."""

import tomllib
from importlib import resources

import pytest

from headstart.errors import UsageError
from headstart.report import language
from headstart.report.language import LANGUAGES, Texts, compare_languages, resolve_language

SPACE = "\u00a0"

CODES = {
    "fit": ("overfits", "underfits", "sound"),
    "advice": (
        *("augment", "regularize", "more-data", "fewer-trained-layers", "train-longer", "higher-learning-rate"),
        *("larger-input", "other-preprocessing", "unfreeze-more", "larger-network", "stop-earlier"),
    ),
    "left_out": (
        *("empty", "not-an-image", "truncated", "too-small", "too-large", "unreadable", "not-a-file", "unsupported"),
    ),
    "converted": (
        *(
            "grayscale",
            "palette",
            "alpha",
            "cmyk",
            "16-bit",
            "dark-16-bit",
            "exif-rotated",
            "first-frame",
            "wrong-extension",
        ),
        *("other-mode", "cropped"),
    ),
    "kinds": ("scratch", "probe", "finetune", "majority", "random-features"),
    "verdict": (
        "not_run_no-weights",
        "not_run_not-pretrained",
        "not_run_pretrained-on-these",
        "not_run_budget",
        "not_run_failed",
    ),
    "statistics": tuple(f"method_{method}" for method in ("wilson", "bootstrap", "newcombe", "none")),
}


def test_both_languages_have_the_same_keys_and_placeholders() -> None:
    assert compare_languages() == []


def test_differences_between_languages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"en": {"a.x": "{n} files", "a.y": "y"}, "es": {"a.x": "{m} archivos", "a.z": "z"}}
    monkeypatch.setattr(language, "_load", files.__getitem__)
    assert compare_languages() == [
        "a.x: placeholders ['n'] in en, ['m'] in es",
        "a.y: only in en",
        "a.z: only in es",
    ]


@pytest.mark.parametrize("name", LANGUAGES)
@pytest.mark.parametrize(("section", "code"), [(s, code) for s, codes in CODES.items() for code in codes])
def test_every_code_of_the_contract_has_a_text(name: str, section: str, code: str) -> None:
    if name == "es":  # in English a code can be the very word
        assert Texts(name).named(section, code) != code
    assert Texts(name).has(f"{section}.{code}")


@pytest.mark.parametrize(
    "code", ["gap-over-threshold", "train-below-reference", "train-near-chance", "gap-and-train-fine"]
)
def test_every_fit_reason_has_a_text(code: str) -> None:
    assert all(Texts(name).has(f"fit.reason_{code}") for name in LANGUAGES)


def test_texts_are_tidy() -> None:
    for name in LANGUAGES:
        for key, text in language._load(name).items():
            assert text == text.strip() or key == "verdict.evidence_trials", key
            assert "  " not in text, key


def test_a_missing_text_is_named() -> None:
    with pytest.raises(LookupError, match=r"es\.toml has no text 'verdict\.nonsense'"):
        Texts("es").get("verdict.nonsense")


def test_a_missing_value_is_named() -> None:
    with pytest.raises(LookupError, match=r"'units\.points' \(en\) needs a value for 'n'"):
        Texts("en").get("units.points")
    with pytest.raises(LookupError, match=r"'units\.points' \(en\) needs a value for 'n'"):
        Texts("en").rich("units.points")


def test_numbers_in_english() -> None:
    texts = Texts("en")
    assert texts.percent(0.71) == "71.0%"
    assert texts.count(1234567) == "1,234,567"
    assert texts.points(-0.0421) == "−4.2 points"
    assert texts.points(0.151) == "+15.1 points"
    assert texts.points(-0.0001) == "0.0 points"
    assert texts.short_count(2_236_682) == f"2.24{SPACE}M"
    assert texts.share_interval({"mean": 0.861, "low": 0.8541, "high": 0.8679, "method": "bootstrap"}) == (
        f"86.1% [85.4,{SPACE}86.8]"
    )
    assert texts.share_interval({"mean": 0.1, "low": 0.1, "high": 0.1, "method": "none"}) == "10.0%"
    assert texts.p_value(0.0004) == f"p{SPACE}<{SPACE}0.001"
    assert texts.p_value(0.0123) == f"p{SPACE}={SPACE}0.012"


def test_numbers_in_spanish() -> None:
    texts = Texts("es")
    assert texts.percent(0.71) == f"71,0{SPACE}%"
    assert texts.count(9999) == "9999"
    assert texts.count(10_000) == f"10{SPACE}000"
    assert texts.points(0.151) == "+15,1 puntos"
    assert texts.difference_interval({"mean": 0.1, "low": -0.02, "high": 0.22, "method": "bootstrap"}) == (
        f"+10,0 puntos [−2,0;{SPACE}+22,0]"
    )


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0 s"),
        (0.4211, "0.42 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min"),
        (200, "3 min 20 s"),
        (3599.7, "1 h"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations(seconds: float, written: str) -> None:
    assert Texts("en").duration(seconds).replace(SPACE, " ") == written


@pytest.mark.parametrize(
    ("number", "written"), [(999, "999 B"), (9_100_000, "9.1 MB"), (999_960, "1.0 MB"), (5_500_000_000, "5.5 GB")]
)
def test_sizes(number: int, written: str) -> None:
    assert Texts("en").bytes(number).replace(SPACE, " ") == written


def test_counts_with_their_nouns() -> None:
    assert [Texts("en").many("units.seeds", n) for n in (1, 3)] == ["1 seed", "3 seeds"]
    assert [Texts("es").many("units.images", n) for n in (1, 3)] == ["1 imagen", "3 imágenes"]


def test_language_is_what_was_asked_for() -> None:
    assert resolve_language("es") == "es"
    assert resolve_language("es_MX.UTF-8") == "es"
    with pytest.raises(UsageError, match=r"'klingon'.*en, es"):
        resolve_language("klingon")


def test_language_comes_from_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_language(None) == "en"
    monkeypatch.setenv("LANG", "es_ES.UTF-8")
    assert resolve_language(None) == "es"
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert resolve_language(None) == "en"
    monkeypatch.setenv("LC_ALL", "fr_FR.UTF-8")
    assert resolve_language(None) == "en"


def test_both_files_are_valid_toml_with_texts_only() -> None:
    for name in LANGUAGES:
        content = resources.files("headstart.report").joinpath("text", f"{name}.toml").read_text("utf-8")
        assert all(isinstance(text, str) for section in tomllib.loads(content).values() for text in section.values())
