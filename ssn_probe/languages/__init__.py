"""Languages: the codes behind their names, the scripts that they are written in, and which one a text is in."""

from ssn_probe.languages.codes import language_code
from ssn_probe.languages.detect import in_language, is_gibberish, language_of, off_language
from ssn_probe.languages.scripts import scripts_in, scripts_of

__all__ = ["in_language", "is_gibberish", "language_code", "language_of", "off_language", "scripts_in", "scripts_of"]
