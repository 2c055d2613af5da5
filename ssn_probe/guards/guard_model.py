"""A guard model: loaded as strictly as the models that are studied, and asked in batches on the same device."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ssn_probe.data.judges.long_texts import Shortened, shortened
from ssn_probe.data.judges.validity import VALIDITY
from ssn_probe.data.judges.verdicts import JudgedRow, Judgement
from ssn_probe.errors import JudgeError, ModelError
from ssn_probe.files import sha256
from ssn_probe.guards.guard_format import GuardFormat
from ssn_probe.model.digests import folder_digest
from ssn_probe.model.families import family_of
from ssn_probe.model.loading import commit_of, locate, read_config, read_tokenizer, read_weights, usable_device
from ssn_probe.model.plain_text import control_tokens
from ssn_probe.model.remedies import read_foreign
from ssn_probe.text import plain
from ssn_probe.tracing.batching import BatchSize, by_length, fitted

BATCH = 16
LONGEST = (8000, 4000, 2000, 1000, 500, 250)
"""Characters of a request or response: the first of these with which both fit into the model's context."""
TEXT_FILES = (
    "chat_template.jinja",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
)
UNREADABLE = 8
"""So many answers, and not one that can be read: it is no such model."""


@dataclass(frozen=True, eq=False)
class GuardModel:
    """The model of a format, in a folder or on the hub. Its weights are read when it is first asked."""

    format: GuardFormat
    where: str
    device: str
    size: BatchSize

    @cached_property
    def config(self) -> Any:
        try:
            return read_config(self.where)
        except ModelError as error:
            name = self.format.name
            hint = f"--judge {name}:FOLDER takes a copy, qwen3guard is open, and phrases needs no model. {error.hint}"
            raise JudgeError(f"The judge {name}: {error.message}", hint) from error

    def identity(self) -> dict[str, Any]:
        """What decides the verdicts, but for rounding: the commit on the hub, or the files of the folder."""
        folder = Path(self.where)
        if not folder.is_dir():
            files = {"model": self.where, "commit": commit_of(self.config)}
        else:
            texts = {name: sha256(folder / name) for name in TEXT_FILES if (folder / name).is_file()}
            files = {"weights": folder_digest(folder), "texts": texts}
        return {"kind": self.format.name, "adapter": self.format.version, "validity": VALIDITY, **files}

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        commit = commit_of(self.config)
        if self.format.has_template:
            return read_tokenizer(self.where, commit)
        return read_foreign(
            self.where,
            "tokenizer",
            lambda: AutoTokenizer.from_pretrained(self.where, revision=commit or "main", trust_remote_code=False),
        )

    @cached_property
    def module(self) -> Any:
        device = usable_device(self.device)
        dtype = "bfloat16" if device.startswith("cuda") else "float32"  # few CPUs compute in half precision
        return read_weights(self.where, self.config, family_of(self.config), dtype, device)

    def judge(self, rows: Sequence[JudgedRow]) -> list[Judgement]:
        """The verdicts on rows with a response; what cannot be read, or does not fit, stays unjudged."""
        asked = [self._prompt(row) for row in rows]
        answers = iter(self.answers([one.text for one in asked if one is not None]))
        found = [
            Judgement("unjudged", "too long for the judge") if one is None else self._read(next(answers), one)
            for one in asked
        ]
        if len(found) >= UNREADABLE and all(one.verdict == "unjudged" for one in found):
            raise JudgeError(
                f"None of {len(found)} answers of {self.where} is what {self.format.name} writes; the first: "
                f"{found[0].reason}",
                f"Give a model of that kind, such as {self.format.model}.",
            )
        return found

    def answers(self, prompts: Sequence[str]) -> list[str]:
        """What the model writes after each prompt, greedily; long ones first, and in halves if the memory runs out."""
        tokens = [self._tokens(prompt) for prompt in prompts]
        left, written = by_length(tokens), dict[int, str]()
        while left:

            def attempt(together: int) -> dict[int, str]:
                rows = left[:together]  # noqa: B023 (called at once)
                return dict(zip(rows, self._generate([tokens[row] for row in rows]), strict=True))

            new = fitted(self.size, attempt)
            written |= new
            left = left[len(new) :]
        return [written[row] for row in range(len(prompts))]

    def _generate(self, tokens: Sequence[list[int]]) -> list[str]:
        import torch

        width = max(map(len, tokens))
        padded = [[0] * (width - len(row)) + row for row in tokens]  # on the left, since what follows is written
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in tokens]
        ids, mask = (torch.tensor(one, device=self.module.device) for one in (padded, mask))
        made = self.module.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=self.format.new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=self._pad,
        )
        return self.tokenizer.batch_decode(made[:, width:], skip_special_tokens=True)

    @cached_property
    def _pad(self) -> int:
        ends = self.module.generation_config.eos_token_id
        ends = self.tokenizer.eos_token_id if ends is None else ends
        return ends[0] if isinstance(ends, list) else ends or 0

    def _tokens(self, prompt: str) -> list[int]:
        return self.tokenizer(prompt, add_special_tokens=False)["input_ids"]

    def _prompt(self, row: JudgedRow) -> "_Asked | None":
        """The prompt, with as much of request and response as fits; None where nothing does."""
        request, response = (self._as_text(text) for text in (row.request, row.response))
        for longest in LONGEST:
            shown = shortened(request, longest), shortened(response, longest)
            text = self.format.prompt(self.tokenizer, *(one.text for one in shown))
            if len(self._tokens(text)) + self.format.new_tokens <= self.config.max_position_embeddings:
                return _Asked(text, *shown)
        return None

    def _as_text(self, text: str) -> str:
        """A text without control tokens and marks: a response must not end its own turn, or begin the answer."""
        for token in self._control_tokens:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    @cached_property
    def _control_tokens(self) -> tuple[str, ...]:
        tokenizer, written = self.tokenizer, "".join(control_tokens(self.tokenizer).written)
        added = [token for token in tokenizer.added_tokens_decoder.values() if token.content]
        known = [token.content for token in added if token.special or token.content in written]
        return tuple(dict.fromkeys([*known, *tokenizer.all_special_tokens, *self.format.marks]))

    def _read(self, answer: str, asked: "_Asked") -> Judgement:
        found = self.format.read(answer)
        if found is None:
            return Judgement("unjudged", f"the judge's answer cannot be read: {plain(answer)[:200] or 'nothing'}")
        return Judgement(found.verdict, found.reason + asked.request.note("request") + asked.response.note("response"))


@dataclass(frozen=True)
class _Asked:
    text: str
    request: Shortened
    response: Shortened


def model_of(format: GuardFormat, name: str | None, device: str) -> GuardModel:
    """The model that `name` gives, a folder or a name on the hub, or the format's own."""
    return GuardModel(format, locate(name or format.model), device, BatchSize(BATCH, auto=True))
