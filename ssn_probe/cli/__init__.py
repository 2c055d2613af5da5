"""The command line."""

from ssn_probe.cli.commands import main

__all__ = ["main"]
