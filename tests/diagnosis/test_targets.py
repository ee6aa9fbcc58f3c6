"""What is almost data, a run or a script's function is told what it is, and what to type."""

from pathlib import Path

import pytest

import headstart
from headstart.errors import UsageError
from headstart.files import write_json
from headstart.records import Recipe


def refused(target: str | Path, said: str, **given: object) -> None:
    with pytest.raises(UsageError, match=said):
        headstart.diagnose(target, **given)  # type: ignore[arg-type]


def test_a_script_without_its_function_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "my_script.py"
    script.write_text("def build():\n    return None\n", encoding="utf-8")
    refused(script, r"my_script\.py is a script: .*my_script\.py:build")
    refused(str(script), "is a script", data="digits")
    refused(f"{script}:", r"names no function.*FILE\.py:FUNCTION")
    refused(Path(f"{script}:build"), "returned NoneType", data="digits")


def test_a_run_that_is_not_finished_and_a_diagnosis_are_told_so(tmp_path: Path) -> None:
    write_json(tmp_path / "half" / "request.json", {})
    refused(tmp_path / "half", r"half is a run that is not finished.*goes on where it stopped")
    write_json(tmp_path / "done" / "request.json", {})
    write_json(tmp_path / "done" / "diagnosis.json", {"command": "headstart diagnose digits"})
    refused(tmp_path / "done", r"is a diagnosis itself.*report\.html.*headstart diagnose digits")
    refused(tmp_path / "done", "is a diagnosis itself", predictions=[0, 1, 2])


def test_another_recipe_than_the_run_s_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "run" / "results.json", {"recipes": []})
    write_json(tmp_path / "run" / "request.json", {})
    for recipe in (Recipe(name="mine", kind="probe", backbone="small32_s"), "mine.toml"):
        refused(tmp_path / "run", r"give its name.*--recipe FILE\.toml", recipe=recipe)
    refused(tmp_path / "run", "no transfer recipe 'mine'", recipe="mine")
    refused(tmp_path / "run", "predictions and curves are of data", predictions=[0, 1, 2])
