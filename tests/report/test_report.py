"""Whole reports: both languages, all numbers, hostile names, many classes, few recipes."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from headstart.errors import RunError
from headstart.report.build import build_document
from headstart.report.document import (
    Block,
    Claim,
    Details,
    Document,
    Figure,
    Gallery,
    ListBlock,
    Paragraph,
    Table,
    plain_text,
)
from headstart.report.figures.comparisons import accuracy_against_seconds
from headstart.report.language import Texts
from headstart.report.render import (
    comparison_table,
    render_html,
    render_markdown,
    render_summary_html,
    verdict_text,
)
from headstart.report.write import write_report
from tests.report.example import failing_results, full_results, minimal_results, renamed, write_images

VOID = {"meta", "img", "link", "br", "hr", "input", "path", "use", "rect", "image"}
HOSTILE = "<script>alert('$x_1$')</script> | `b` \\ & \"q\"\nline"
# Words that one language needs in every other sentence and the other does not have.
ENGLISH = {
    "the",
    "of",
    "and",
    "is",
    "are",
    "with",
    "that",
    "not",
    "its",
    "than",
    "which",
    "were",
    "was",
    "this",
    "from",
}
SPANISH = {"el", "la", "los", "las", "de", "que", "con", "una", "por", "más", "su", "sus", "del", "es", "son", "se"}


def _blocks(blocks: tuple[Block, ...]) -> list[Block]:
    return [b for block in blocks for b in [block, *(_blocks(block.blocks) if isinstance(block, Details) else [])]]


def _prose(document: Document) -> list[str]:
    """Every text of a document but code and emphasised names."""

    def spoken(inline: Any) -> str:
        return " ".join(span.text for span in inline if span.style == "plain")

    texts = [document.title, document.subtitle]
    for block in _blocks(document.blocks):
        match block:
            case Paragraph():
                texts.append(spoken(block.text))
            case Claim():
                texts += [spoken(block.text), spoken(block.evidence)]
            case ListBlock():
                texts += [spoken(item) for item in block.items]
            case Table():
                texts += [block.caption, *block.header, *(spoken(cell) for row in block.rows for cell in row)]
            case Figure():
                texts += [block.caption, block.alt, *re.findall(r"<text[^>]*>([^<]*)</text>", block.svg)]
            case Gallery():
                texts += [block.caption, *(spoken(picture.caption) for picture in block.pictures)]
                texts += [picture.missing + picture.alt for picture in block.pictures]
            case Details():
                texts.append(block.summary)
            case _:
                pass
    return texts


def _without_names(text: str, results: dict[str, Any]) -> str:
    names = [recipe["name"] for recipe in results["recipes"]] + [entry["name"] for entry in results["data"]["classes"]]
    for name in sorted([*names, results["name"], "images/"], key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", " ", text)
    return text


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The full example in a run folder, its images included."""
    folder = tmp_path_factory.mktemp("run")
    results = full_results()
    write_images(results, folder)
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def document(run: Path) -> Document:
    return build_document(full_results(), "en", run)


@pytest.fixture(scope="module")
def page(document: Document) -> str:
    return render_html(document)


class _WellFormed(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()


def _parsed(text: str) -> _WellFormed:
    parser = _WellFormed()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


def test_page_is_well_formed_and_self_contained(page: str) -> None:
    parser = _parsed(page)
    assert len(parser.ids) == len(set(parser.ids))
    assert "script" not in parser.tags
    assert "link" not in parser.tags
    assert all(reference.startswith(("#", "data:image/png;base64,")) for reference in parser.references)
    assert {reference[1:] for reference in parser.references if reference.startswith("#")} <= set(parser.ids)
    assert not re.search(r"@import|url\((?!['\"]?#)", page)
    assert '<html lang="en">' in page


def test_page_follows_light_and_dark(page: str) -> None:
    assert "@media (prefers-color-scheme: dark)" in page
    assert "@media print" in page
    used = set(re.findall(r"var\((--[\w-]+)", page)) - {"--tone", "--natural"}
    light = page[page.index(":root") : page.index("}", page.index(":root"))]
    dark = page[page.index("color-scheme: dark)") :]
    dark = dark[: dark.index("}")]
    assert all(f"{name}:" in light and f"{name}:" in dark for name in used)


def test_figures_take_their_colours_from_the_page_and_say_what_they_show(document: Document) -> None:
    figures = [block for block in _blocks(document.blocks) if isinstance(block, Figure)]
    assert len(figures) >= 12
    for figure in figures:
        assert figure.alt
        assert figure.caption
        ElementTree.fromstring(figure.svg)
        assert not re.search(r"Q\d{4}Q|#0[1-6]0[1-6]0[1-6]|#0a0a0", figure.svg)
        assert "DejaVu" not in figure.svg
        assert "<metadata" not in figure.svg


@pytest.mark.parametrize("language", ["en", "es"])
def test_the_cost_figure_tells_scratch_native_and_enlarged_backbones_apart(language: str) -> None:
    recipes, texts = full_results()["recipes"], Texts(language)
    native = json.loads(json.dumps(recipes[1]))
    native |= {"name": "small32_m-probe", "weights": native["weights"] | {"native_size": 32}}
    families = ("scratch", "small", "large", "control")
    words = {family: texts.get(f"figures.family_{family}") for family in families}
    with_native = accuracy_against_seconds([*recipes, native], texts)
    assert all(word in with_native for word in words.values())
    assert words["small"] not in accuracy_against_seconds(recipes, texts)


def _formatted(results: dict[str, Any], texts: Texts) -> list[str]:
    """Every number of the results as the report should write it."""
    data, study, found = results["data"], results["study"], []
    for entry in data["classes"]:
        found += [texts.count(entry[part]) for part in ("train", "val", "test")]
    for size in data["original_sizes"]:
        found += [texts.count(size[name]) for name in ("width", "height", "count")]
    found += [texts.decimal(value, 1) for value in (*data["channel_mean"], *data["channel_std"])]
    found += [texts.count(data["duplicates"][name]) for name in ("groups", "across_splits", "conflicting_labels")]
    found += [texts.count(data["images"]), texts.decimal(data["imbalance"], 2), texts.count(data["canvas"])]
    found += [texts.count(data["split"][part]) for part in ("train", "val", "test")]
    found += [texts.duration(study[name]) for name in ("budget_seconds", "predicted_seconds", "actual_seconds")]
    found += [texts.count(study["limit"]), texts.gap(study["margin"])]
    for pair in results["comparisons"]:
        found.append(texts.difference_interval(pair["difference"]))
        found += [f"{texts.count(test['only_a'])} / {texts.count(test['only_b'])}" for test in pair["mcnemar"]]
    for recipe in results["recipes"]:
        found.append(texts.share_interval(recipe["test_accuracy"]))
        found += [texts.percent(recipe[f"{part}_accuracy"]["mean"]) for part in ("train", "val")]
        found.append(texts.difference_interval(recipe["train_val_gap"]))
        found += [texts.decimal(recipe[name], 3) for name in ("log_loss", "ece")]
        found.append(texts.percent(recipe["balanced_accuracy"]))
        found += [texts.decimal(value, 3) for which in recipe["averages"].values() for value in which.values()]
        found += [texts.percent(entry["share"]) for entry in recipe["top_confusions"]]
        found += [texts.count(count) for row in recipe["confusion"] for count in row if count]
        for entry in [] if recipe["control"] else recipe["per_class"]:
            found += [texts.decimal(entry[name], 3) for name in ("precision", "recall", "f1")]
        for curve in recipe["history"]:
            for epoch in curve["epochs"]:
                found += [texts.percent(epoch["val_accuracy"]), texts.decimal(epoch["train_loss"], 3)]
        for entry in recipe["reliability"]:
            found += [texts.percent(entry["accuracy"])] if entry["count"] else []
        found.append(texts.duration(recipe["planned"]["seconds"]))
        cost = recipe["cost"]
        found += [texts.count(cost[name]) for name in ("parameters", "parameters_trained", "macs")]
        found += [texts.duration(cost[name]) for name in cost if name.endswith("_seconds")]
        found += [texts.bytes(cost["peak_bytes"]), texts.milliseconds(cost["latency_ms"])]
        found += recipe["trials"]
    return found


@pytest.mark.parametrize("language", ["en", "es"])
def test_every_number_is_shown(run: Path, language: str) -> None:
    shown = render_html(build_document(full_results(), language, run)).replace("&#39;", "'")
    missing = [number for number in _formatted(full_results(), Texts(language)) if number not in shown]
    assert missing == []


@pytest.mark.parametrize("make", [full_results, failing_results, minimal_results])
def test_no_language_slips_into_the_other(make: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    results = make()
    english, spanish = (_prose(build_document(results, language, tmp_path)) for language in ("en", "es"))
    english, spanish = ([_without_names(text, results) for text in texts] for texts in (english, spanish))

    def words(text: str) -> list[str]:
        return re.findall(r"[^\W\d_]{2,}", text.lower())

    shared = {text for text in english if len(words(text)) >= 3} & set(spanish)
    assert shared == set()
    assert [text for text in english if SPANISH & set(words(text))] == []
    assert [text for text in spanish if ENGLISH & set(words(text))] == []


def test_the_stored_sentence_is_never_copied(page: str) -> None:
    assert full_results()["verdict"]["statement"] not in page


def test_a_transfer_recipe_no_better_than_random_features_is_called_so(tmp_path: Path) -> None:
    claims = [block for block in build_document(failing_results(), "en", tmp_path).blocks if isinstance(block, Claim)]
    failed = [claim for claim in claims if claim.tone == "bad"]
    assert len(failed) == 2
    assert "does not beat random features" in plain_text(failed[0].text)
    assert any("Cost decided" in plain_text(claim.text) for claim in claims)
    assert any("within the margin of 1.0 points" in plain_text(claim.text) for claim in claims)


def test_every_claim_has_its_evidence(document: Document) -> None:
    claims = [block for block in _blocks(document.blocks) if isinstance(block, Claim)]
    assert len(claims) >= 8
    assert all("interval" in plain_text(claim.evidence) and "seed" in plain_text(claim.evidence) for claim in claims)


def test_what_could_not_run_says_what_to_do(document: Document) -> None:
    items = [plain_text(item) for block in document.blocks if isinstance(block, ListBlock) for item in block.items]
    assert any("resnet50-probe" in item and "--weights-dir" in item for item in items)
    assert any("resnet50-finetune" in item and "1\u00a0h\u00a030\u00a0min" in item for item in items)
    assert any("vit-probe" in item and "MemoryError" in item for item in items)


CUT = {
    "en": (
        "First seed's trial, as predicted",
        "cnn was shortened to fit the budget: 12 of its 20 epochs, width 16 instead of 32.",
    ),
    "es": (
        "Ensayo de la primera semilla, según lo previsto",
        "cnn se acortó para caber en el tiempo disponible: 12 de sus 20 épocas; ancho 16 en lugar de 32.",
    ),
}


@pytest.mark.parametrize("language", ["en", "es"])
def test_what_was_predicted_stands_beside_what_it_took_and_what_a_budget_cut_is_said(
    tmp_path: Path, language: str
) -> None:
    row, sentence = CUT[language]
    results = full_results()
    predicted, cut = _planned(build_document(results, language, tmp_path), row)
    assert predicted == [Texts(language).duration(recipe["planned"]["seconds"]) for recipe in results["recipes"]]
    assert sentence in cut
    said = sentence.split(":")[0].removeprefix("cnn")
    assert [item for item in cut if said in item] == [sentence]  # nothing else was cut
    for recipe in results["recipes"]:
        recipe["planned"].update(asked_epochs=recipe["settings"]["epochs"], asked_width=recipe["settings"]["width"])
    assert sentence not in _planned(build_document(results, language, tmp_path), row)[1]


def test_a_run_from_before_the_plan_was_kept_has_its_report(tmp_path: Path) -> None:
    results = full_results()
    for recipe in results["recipes"]:
        del recipe["planned"]
    for language in ("en", "es"):
        document = build_document(results, language, tmp_path)
        _parsed(render_html(document))
        predicted, cut = _planned(document, CUT[language][0])
        assert predicted == []
        assert CUT[language][1] not in cut


def _planned(document: Document, row: str) -> tuple[list[str], list[str]]:
    """The cells of the row with this name, and every item of every list."""
    blocks = _blocks(document.blocks)
    rows = [
        [plain_text(cell) for cell in cells] for block in blocks if isinstance(block, Table) for cells in block.rows
    ]
    items = [plain_text(item) for block in blocks if isinstance(block, ListBlock) for item in block.items]
    return [cell for cells in rows if cells[0] == row for cell in cells[1:]], items


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    names = (HOSTILE, "猫 🐈", "$\\frac{1}{2}$", "a_b^c")
    results = renamed(full_results(names), "cnn", HOSTILE)
    results["data"]["left_out"][0].update(path="a|b`c``<b>.png", detail=HOSTILE)
    results["command"] = "headstart compare '</code><script>' ```"
    document = build_document(results, "en", tmp_path)
    page = render_html(document)
    assert "<script" not in page
    assert "script" not in _parsed(page).tags
    assert "&lt;script&gt;" in page
    markdown = render_markdown(document, tmp_path / "figures")
    assert not re.search(r"(?<!`)<script(?!.*`)", markdown)
    for line in markdown.splitlines():
        if line.startswith("| "):
            rest = re.sub(r"\\.", "", line)
            assert rest.endswith("|")
    for table in re.findall(r"(?:^\|.*\n)+", markdown, flags=re.MULTILINE):
        rows = [len(re.findall(r"(?<!\\)\|", row.replace("\\\\", ""))) for row in table.splitlines()]
        assert len(set(rows)) == 1, table
    for figure in (tmp_path / "figures").iterdir():
        ElementTree.parse(figure)
    assert "猫 🐈" in markdown


def test_a_hundred_classes(tmp_path: Path) -> None:
    results = full_results(tuple(f"クラス {number}" for number in range(100)), epochs=1)
    page = render_html(build_document(results, "es", tmp_path))
    _parsed(page)
    assert "クラス 99" in page
    assert len(page) < 3_000_000


def test_a_minimal_run(tmp_path: Path) -> None:
    for language in ("en", "es"):
        document = build_document(minimal_results(), language, tmp_path)
        _parsed(render_html(document))
        render_markdown(document, tmp_path / "figures")


def test_only_controls_and_nothing_at_all(tmp_path: Path) -> None:
    results = full_results()
    nobody = dict.fromkeys(
        ("best", "runner_up", "difference", "p_holm", "best_scratch", "best_transfer", "cost_ratio"), None
    )
    results["verdict"].update(nobody, code="nothing-learned", decided_by="alone", controls=[])
    results.update(recipes=results["recipes"][3:], comparisons=[])
    _parsed(render_html(build_document(results, "en", tmp_path)))
    results["recipes"] = []
    _parsed(render_html(build_document(results, "en", tmp_path)))


def test_images_are_embedded_and_missing_ones_named(run: Path, page: str, tmp_path: Path) -> None:
    assert page.count("data:image/png;base64,") >= 30
    elsewhere = render_html(build_document(full_results(), "en", tmp_path))
    assert "image file missing: images/sample-0-0.png" in elsewhere


def test_images_outside_the_run_are_not_read(run: Path, tmp_path: Path) -> None:
    results = full_results()
    (tmp_path / "outside.png").write_bytes((run / "images/sample-0-0.png").read_bytes())
    (tmp_path / "run").mkdir()
    results["data"]["samples"] = [{"class": "cat", "image": "../outside.png"}]
    page = render_html(build_document(results, "en", tmp_path / "run"))
    assert "image file missing: ../outside.png" in page


def test_rebuilding_gives_the_same_bytes(run: Path) -> None:
    first = write_report(run, "es")
    contents = [path.read_bytes() for path in (first.html, first.markdown, *sorted((run / "figures").iterdir()))]
    again = write_report(run, "es")
    assert contents == [
        path.read_bytes() for path in (again.html, again.markdown, *sorted((run / "figures").iterdir()))
    ]


def test_markdown_links_what_is_there(run: Path) -> None:
    text = write_report(run, "en").markdown.read_text(encoding="utf-8")
    links = re.findall(r"\]\((figures/[^)]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    assert len(links) > 40
    assert all((run / link).is_file() for link in links)


def test_results_of_a_newer_version(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"schema_version": 2, "headstart_version": "9.0"}')
    with pytest.raises(RunError, match=r"schema version 2, written by headstart 9\.0.*Upgrade"):
        write_report(tmp_path, "en")
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(RunError, match="no schema_version"):
        write_report(tmp_path, "en")
    with pytest.raises(RunError, match="does not exist"):
        write_report(tmp_path / "nowhere", "en")


def test_terminal_shows_names_as_they_are() -> None:
    from rich.console import Console

    console = Console(width=200, record=True, color_system=None, file=open("/dev/null", "w"))  # noqa: SIM115
    results = renamed(full_results(), "cnn", "[red]cnn[/red]\x1b[2J")
    console.print(comparison_table(results, Texts("es")))
    console.print(verdict_text(results, Texts("es")))
    shown = console.export_text()
    assert "[red]cnn[/red]" in shown
    assert "\x1b" not in shown
    assert "71,0" in shown
    console.file.close()


def test_summary_for_notebooks() -> None:
    fragment = render_summary_html(full_results(), "es")
    _parsed(fragment)
    assert "Reutiliza una red preentrenada" in fragment
    assert "90,3" in fragment
    assert "<html" not in fragment


def test_users_matplotlib_settings_neither_matter_nor_change(run: Path, page: str) -> None:
    import matplotlib

    with matplotlib.rc_context({"text.color": "red", "axes.facecolor": "black", "font.size": 30, "lines.linewidth": 9}):
        before = dict(matplotlib.rcParams)
        assert render_html(build_document(full_results(), "en", run)) == page
        assert dict(matplotlib.rcParams) == before


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, headstart.report.language; print({'matplotlib', 'jinja2', 'torch', 'rich'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_what_libraries_said_in_english_stays_out_of_the_spanish_report(tmp_path: Path) -> None:
    results = full_results()
    said = "a sentence that a library wrote in English"
    results["data"]["left_out"][0]["detail"] = said
    results["not_run"] = [{"name": "net-probe", "reason": "no-weights", "detail": said}]
    assert said in render_html(build_document(results, "en", tmp_path))
    assert said not in render_html(build_document(results, "es", tmp_path))
