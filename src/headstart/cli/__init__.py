"""The command line: parse, one call, print."""

# Each puts its commands into the program, in the order of its help.
from headstart.cli import studies

# isort: split
from headstart.cli import results
from headstart.cli.app import main

__all__ = ["main", "results", "studies"]
