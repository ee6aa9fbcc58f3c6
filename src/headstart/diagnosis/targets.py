"""What is named to be diagnosed: data, the folder of a finished run, or a script's function; near misses are told what they are."""

from pathlib import Path

from headstart.errors import UsageError
from headstart.files import read_json


def is_finished_run(target: str | Path) -> bool:
    """Whether a target is the folder of a finished `headstart compare`."""
    return (Path(target) / "results.json").is_file()


def refuse_near_misses(target: str | Path) -> None:
    """Name what is neither data nor a finished run nor a script's function, although it looks like one of them.

    Raises:
        UsageError: a script without its function, a run that is not finished, or a diagnosis.
    """
    path = Path(target)
    if path.suffix == ".py" and not path.is_dir():
        raise UsageError(
            f"{target} is a script: say which of its functions builds the network, such as {target}:build. It takes no "
            "arguments and returns (model, preprocess)."
        )
    if ".py:" in str(target):
        raise UsageError(
            f"{target} names no function of a script. Expected FILE.py:FUNCTION, such as my_script.py:build."
        )
    if is_finished_run(path):
        return
    if (path / "diagnosis.json").is_file():
        record = read_json(path / "diagnosis.json")
        raise UsageError(
            f"{path} is a diagnosis itself. Its report is {path / 'report.html'}; it was made with: {record.get('command')}. "
            "Name what is to be diagnosed: data, the folder of a run of headstart compare, or FILE.py:FUNCTION."
        )
    if (path / "request.json").is_file():
        raise UsageError(
            f"{path} is a run that is not finished: it has no results.json. Give the command that began it once more, with the "
            "same --name; it goes on where it stopped. Then diagnose the folder."
        )
