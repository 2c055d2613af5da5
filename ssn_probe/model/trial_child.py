"""A process of its own that applies a foreign template and tokenizer, within limits, and says how far it came.

Run as `python -m ssn_probe.model.trial_child`: a request in JSON on stdin, a line per stage on stdout, at last `done`
or `error …`. It is killed where it takes too long, and gets no more memory than it may have; what it computes is thrown
away.
"""

import contextlib
import json
import re
import sys
from typing import Any


def main() -> None:
    """Reads the request: `seconds`, `memory`, and what `_tokenizer` and `_rendered` take."""
    request = json.load(sys.stdin)
    _limit(request["seconds"], request["memory"])
    try:
        _say("load")
        tokenizer = _tokenizer(request)
        _say("render")
        texts = _rendered(request)
        if tokenizer is not None:
            _say("encode")
            for text in (*request["texts"], *texts):
                tokenizer.encode(text, add_special_tokens=False)
        _say("done")
    except MemoryError:
        _say("error it needs too much memory")
    except BaseException as error:  # a panic of Rust is no Exception
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        _say(f"error {first[:300]}")


def _limit(seconds: int, memory: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 (the process that asked reads it)


def _tokenizer(request: dict[str, Any]) -> Any:
    """The tokenizer of a `path` or a `content`; None where there is none, or the error is for who asked to find."""
    from tokenizers import Tokenizer

    try:
        if request["path"] is not None:
            return Tokenizer.from_file(request["path"])
        return None if request["content"] is None else Tokenizer.from_str(request["content"])
    except MemoryError:
        raise
    except Exception:
        return None


def _rendered(request: dict[str, Any]) -> list[str]:
    """Every chat in the template. One that raises gives nothing: who asked will see the same, with the right words."""
    import jinja2

    if request["template"] is None:
        return []
    texts = []
    try:
        template = _environment().from_string(re.sub(r"{%-?\s*(end)?generation\s*-?%}", "", request["template"]))
    except (jinja2.TemplateError, ValueError, ArithmeticError, RecursionError):
        return []
    for chat in request["chats"]:
        for prompted in (True, False):
            options = {"messages": chat, "add_generation_prompt": prompted, "tools": None, **request["switches"]}
            length = 0
            with contextlib.suppress(
                jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError
            ):
                pieces = []
                for piece in template.generate(**request["special"], **options):
                    length += len(piece)
                    if length > request["longest"]:
                        raise MemoryError
                    pieces.append(piece)
                texts.append("".join(pieces))
    return texts


def _environment() -> Any:
    """As transformers makes it, as far as time and memory depend on it."""
    import datetime

    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(
        value, **{name: option for name, option in options.items() if name != "separators"}, default=str
    )
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment


if __name__ == "__main__":
    main()
