"""Languages: the codes behind their names, and the scripts that they are written in."""

from ssn_probe.languages.codes import language_code

__all__ = ["language_code"]
