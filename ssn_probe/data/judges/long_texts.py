"""Long texts for judges that read only so much: the middle is left out, and the reason of the verdict says so."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shortened:
    """A text without its middle, and how many characters that had."""

    text: str
    left_out: int

    def note(self, name: str) -> str:
        """What the reason of a verdict says about it."""
        return f"; {self.left_out:,} characters in the middle of the {name} were not shown" if self.left_out else ""


def shortened(text: str, longest: int) -> Shortened:
    """A text of at most `longest` characters and a mark: a refusal stands at its beginning or its end."""
    if len(text) <= longest:
        return Shortened(text, 0)
    head = longest // 2
    tail = len(text) - (longest - head)
    return Shortened(f"{text[:head]} [… {tail - head:,} characters left out …] {text[tail:]}", tail - head)
