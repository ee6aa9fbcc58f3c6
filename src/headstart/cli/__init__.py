"""The command line: parse, one call, print."""

from headstart.cli.commands import main

__all__ = ["main"]
