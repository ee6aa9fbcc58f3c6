"""The planted-fault benchmark: which file a row goes to, what is run again, and that docs/ shows what the files say."""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import run
from cases import PARTS, Case, Folders, all_cases
from rows import DOCS, RESULTS, Row, files_of, measured_files, part_file, rows_of

from headstart.analysis.diagnosis import CATALOGUE
from headstart.files import read_json, write_json

PAGES = ("diagnosis.md", "why-transfer-fails.md", "why-transfer-fails.es.md")


class Bench:
    """The benchmark's command, whose cases give rows without anything being trained."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.code = "first"
        self.docs_written = 0
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(run, "_rows", self._rows)
        monkeypatch.setattr(run, "code_version", lambda: self.code)
        monkeypatch.setattr(run, "write_docs", self._write_docs)

    def __call__(self, *options: str, out: Path | None) -> list[str]:
        """The names of the cases that the command ran."""
        self._ran: list[str] = []
        where = ["--cifar10", "c", "--tiny-imagenet", "t", "--weights", "w"]
        self._monkeypatch.setattr(
            "sys.argv", ["run.py", *where, *([] if out is None else ["--out", str(out)]), *options]
        )
        run.main()
        return self._ran

    def _rows(self, cases: list[Case], folders: Folders, jobs: int) -> Iterator[tuple[Case, Row]]:
        for case in cases:
            self._ran.append(case.name)
            yield case, {"part": case.part, "planted": [], "found": [], "case_seconds": 0.0}

    def _write_docs(self) -> None:
        self.docs_written += 1


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_every_cause_of_the_catalogue_is_planted_and_no_case_has_another_s_name() -> None:
    cases = all_cases()
    for part in PARTS:
        planted = {cause for case in cases if case.part == part for cause in case.planted}
        assert planted == set(CATALOGUE)
    assert len({case.name for case in cases}) == len(cases)
    handed_over = Counter(case.evidence for case in cases)
    assert (handed_over["run"], handed_over["tuned"]) == (7, 12)


def test_every_row_is_in_the_file_of_its_part_whatever_part_was_asked_for(bench: Bench, tmp_path: Path) -> None:
    ran = bench("--limit-cases", "5", out=tmp_path)
    first = all_cases()[:5]
    assert ran == [case.name for case in first]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["diagnosis_report.json", "diagnosis_tune.json"]
    for part in PARTS:
        rows = read_json(part_file(part, tmp_path))["cases"]
        assert list(rows) == [case.name for case in first if case.part == part] != []
    # Whether one part or both are asked for next, no case is run twice.
    ran += bench("--part", "tune", "--limit-cases", "1", out=tmp_path)
    ran += bench("--limit-cases", "3", out=tmp_path)
    assert len(set(ran)) == len(rows_of(files_of(measured_files(tmp_path)))) == 9


def test_a_part_leaves_the_file_of_the_other_alone(bench: Bench, tmp_path: Path) -> None:
    assert len(bench("--part", "report", "--only", "gray", "--limit-cases", "2", out=tmp_path)) == 2
    assert measured_files(tmp_path) == [part_file("report", tmp_path)]


def test_changed_runs_the_rows_of_other_code_again_in_both_files(bench: Bench, tmp_path: Path) -> None:
    before = bench("--limit-cases", "4", out=tmp_path)
    bench.code = "second"
    assert bench("--limit-cases", "4", "--changed", out=tmp_path) == before
    assert {row["code"] for row in rows_of(files_of(measured_files(tmp_path)))} == {"second"}


def test_changed_begins_with_the_row_that_was_measured_the_longest_ago(bench: Bench, tmp_path: Path) -> None:
    first, second, third = bench("--part", "report", "--limit-cases", "3", out=tmp_path)
    bench.code = "second"
    assert bench("--part", "report", "--limit-cases", "1", "--changed", out=tmp_path) == [first]
    bench.code = "third"
    again = bench("--part", "report", "--limit-cases", "3", "--changed", out=tmp_path)
    assert again == [second, third, first]


def test_the_docs_are_written_at_the_end_unless_the_results_are_elsewhere(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench("--limit-cases", "1", out=tmp_path / "trial")
    assert bench.docs_written == 0
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    bench("--limit-cases", "1", out=None)
    assert bench.docs_written == 1
    assert len(measured_files(tmp_path)) == 1


def test_a_file_is_no_folder_of_results(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench(out=tmp_path / "rows.json")
    assert "--out is a folder, in which every part has its file, not" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_that_another_run_is_writing_is_refused(bench: Bench, tmp_path: Path) -> None:
    with run._no_other_writing(part_file("report", tmp_path)):
        assert len(bench("--part", "tune", "--limit-cases", "1", out=tmp_path)) == 1
        with pytest.raises(SystemExit, match=r"Another process is writing .*diagnosis_report\.json"):
            bench("--limit-cases", "1", out=tmp_path)
    assert len(bench("--limit-cases", "1", out=tmp_path)) == 1


def test_the_docs_show_what_the_files_of_results_say(tmp_path: Path) -> None:
    for page in PAGES:
        shutil.copy(DOCS / page, tmp_path)
    run.write_docs(RESULTS, tmp_path)
    for page in PAGES:
        assert (tmp_path / page).read_text(encoding="utf-8") == (DOCS / page).read_text(encoding="utf-8")
    drawn = sorted((tmp_path / "figures").iterdir())
    assert [path.name for path in drawn] == sorted(path.name for path in (DOCS / "figures").glob("diagnosis-*.svg"))
    for path in drawn:
        assert _texts(path) == _texts(DOCS / "figures" / path.name)


def _texts(figure: Path) -> list[str]:
    """What is written in a figure: a drawing library's next version may place it otherwise."""
    return [
        line
        for element in ElementTree.parse(figure).iter()
        for line in (element.text or "").split("\n")
        if line.strip()
    ]


def test_the_docs_wait_for_both_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(part_file("tune", tmp_path), {"cases": {}})
    run.write_docs(tmp_path, tmp_path / "docs")
    assert "nothing of the part report has been measured" in capsys.readouterr().out
    assert not (tmp_path / "docs").exists()


def test_a_case_in_two_files_is_refused(tmp_path: Path) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    for path in (one, other):
        write_json(path, {"cases": {"healthy/cifar": {}}})
    with pytest.raises(SystemExit, match=r"healthy/cifar is in .*one\.json and in .*other\.json"):
        rows_of(files_of([one, other]))
