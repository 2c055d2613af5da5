"""A measure per language as csv, LaTeX and markdown: the summary's own figures, names that stay names, whole files."""

import re
import shutil
import subprocess
import unicodedata
from pathlib import Path

import polars as pl
import pytest
from arm_samples import LANGUAGES, compared, comparisons, samples, spelled
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from stored import HOSTILE, renamed, stored_run

from ssn_probe import Result
from ssn_probe.cli.commands import main
from ssn_probe.errors import ResultError
from ssn_probe.report.export import _LATEX, csv, latex
from ssn_probe.study.summary import summarise
from ssn_probe.text import plain

EACH_WAY = st.text(st.sampled_from("ab \\{}$&#%_^~<>|\"'`[]*-,?!"), max_size=30)


def rows_of(tex: str) -> list[list[str]]:
    return [re.split(r"(?<!\\)&", line.removesuffix(r" \\")) for line in tex.splitlines() if line.endswith(r"\\")]


def controlled(folder: Path) -> Result:
    """A run whose tested arm stands beside 19 sets, one figure of which lies outside 0 and 100."""
    run = stored_run(folder)
    figures = {"mean": 0.5, "low": -0.1, "high": 0.625}
    beside = [compared("ss", language=language, **figures) for language in ("bb", "cc", "average")]
    comparisons(*beside).write_parquet(folder / "comparisons.parquet")
    return Result(run)


def hostile(folder: Path) -> Result:
    return Result(renamed(renamed(stored_run(folder), "bb", HOSTILE), "ss", f"[2cm] {HOSTILE}"))


def test_csv_has_the_summarys_own_figures(tmp_path: Path) -> None:
    result = Result(stored_run(tmp_path))
    path = result.export(tmp_path / "deep" / "table.csv")
    expected = result.summary.filter(measure="asr")
    assert_frame_equal(pl.read_csv(path, schema=expected.schema), expected)


def test_an_average_over_fewer_languages_is_said_so_beside_the_figures(tmp_path: Path) -> None:
    """The neurons of bb, applied in every language: their average leaves out bb, as the summary's does."""
    run = stored_run(tmp_path)
    told = "The average of an arm that applies one language's neurons everywhere leaves out that language."
    for suffix in (".md", ".tex"):
        assert told not in Result(run).export(tmp_path / f"own{suffix}").read_text(encoding="utf-8")
    verdicts = {language: spelled(text) for language, text in LANGUAGES.items()}
    tested = samples("ss", "tested", verdicts).with_columns(set_language=pl.lit("bb"))
    frame = pl.concat([samples("baseline", "baseline", verdicts), tested])
    summarise(frame, None, anchor="aa", primary="ss").write_parquet(run.path / "summary.parquet")
    for suffix in (".md", ".tex"):
        assert told in Result(run).export(tmp_path / f"one{suffix}").read_text(encoding="utf-8")


def test_latex_is_a_booktabs_table_and_markdown_has_the_same_figures(tmp_path: Path) -> None:
    result = controlled(tmp_path)
    text = result.export(tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| language | baseline | ss | ss, exchanged labels |" in text
    assert "| bb | 25.0 [7.1, 59.1] | 100.0 [67.6, 100.0] | 50.0 [0.0, 62.5] |" in text
    assert "| aa (anchor) | 0.0 [0.0, 32.4] | 0.0 [0.0, 32.4] | – |" in text
    tex = result.export(tmp_path / "table.tex").read_text(encoding="utf-8")
    assert r"\begin{tabular}{lrrr}" in tex
    assert re.findall(r"\\(\w+)rule\n", tex) == ["top", "mid", "mid", "bottom"]
    found = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows_of(tex)}
    assert found["language"] == ["baseline", "ss", "ss{,} exchanged labels"]
    assert found["bb"] == ["25.0 [7.1, 59.1]", "100.0 [67.6, 100.0]", "50.0 [0.0, 62.5]"]
    assert found["aa (anchor)"][2] == "--"
    assert list(found)[-1] == "average without aa"
    assert "19 sets found under exchanged labels" in tex
    assert r"needs \usepackage{booktabs}" in tex


def test_names_in_other_scripts_need_another_latex(tmp_path: Path) -> None:
    for name, needed in (("größe", False), ("الآمن", True)):
        result = Result(renamed(stored_run(tmp_path / name), "ss", name))
        assert ("XeLaTeX" in result.export(tmp_path / "t.tex").read_text(encoding="utf-8")) == needed


def test_log_odds_keep_their_unit_and_their_sign(tmp_path: Path) -> None:
    run = stored_run(tmp_path)
    shifted = [(pl.col(name) - 1.5).alias(name) for name in ("value", "low", "high")]
    log_odds = run.table("summary").filter(measure="asr").with_columns(*shifted, measure=pl.lit("refusal_log_odds"))
    log_odds.write_parquet(tmp_path / "summary.parquet")
    result = Result(run)
    tex = result.export(tmp_path / "t.tex", "refusal_log_odds").read_text(encoding="utf-8")
    assert "$-1.25$ [$-1.43$, $-0.91$]" in tex
    assert "in %" not in tex
    assert "| -1.25 [-1.43, -0.91] |" in result.export(tmp_path / "t.md", "refusal_log_odds").read_text(
        encoding="utf-8"
    )


def test_a_language_that_was_not_measured_has_no_row_and_a_cell_none(tmp_path: Path) -> None:
    run = stored_run(tmp_path, arms={"ss": {"bb": "cccccccc"}}, evaluated=["aa", "bb", "cc", "dd"])
    text = Result(run).export(tmp_path / "t.md").read_text(encoding="utf-8")
    assert "| cc | 50.0 [21.5, 78.5] | – |" in text
    assert "| dd |" not in text


def test_names_are_hostile(tmp_path: Path) -> None:
    result = hostile(tmp_path)
    tex = result.export(tmp_path / "t.tex").read_text(encoding="utf-8")
    assert {len(row) for row in rows_of(tex)} == {3}
    assert "\x1b" not in tex
    assert r"\input" not in tex
    text = result.export(tmp_path / "t.md").read_text(encoding="utf-8")
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")} == {4}
    assert "<script>" not in re.sub(r"\\[<>]", "", text)
    frame = pl.read_csv(result.export(tmp_path / "t.csv"), schema=result.summary.schema)
    assert set(frame["language"]) == {name.replace("\x1b", "") for name in result.summary["language"]}


FORMULAS = (
    *(
        "=1+1",
        "+1",
        "-1+cmd|' /C calc'!A0",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "  \t -1",
        "\u00a0=1",
        "\ufeff=1",
    ),
    *("\u200b=1", '"=1', "'=1", '""=1', "`=1", "＝1", "＋1", "－1", "＠SUM(1)", "﹦1", "⁼1", "\x00=1", "\x1b=1"),
    *("\tx", "\rx", "\nx", "a;=1", "a\n=1", 'a";" =1', "a\t@SUM(1)", "a;;+1"),
)
SEPARATED = re.compile(r"[;\t\r\n]")


@pytest.mark.parametrize("name", FORMULAS)
def test_no_name_in_a_csv_is_a_formula(name: str) -> None:
    table = pl.DataFrame({"language": [name], "method": ["wilson - exact"], "delta": [-0.25]})
    written = csv(table)
    cell = pl.read_csv(written.encode())["language"][0]
    assert cell == name.strip("\x00\x1b") or "'" in cell
    for part in [cell, *SEPARATED.split(cell)[1:]]:
        shown = unicodedata.normalize("NFKC", part).replace("−", "-").lstrip('"` \t\r\n\ufeff\u200b')
        assert not shown.startswith(("=", "+", "-", "@")), cell
    assert not cell.startswith(("\t", "\r", "\n"))
    assert written.endswith(",wilson - exact,-0.25\n")


def test_usual_names_and_negative_numbers_are_written_as_they_are() -> None:
    table = pl.DataFrame({"language": ["pt-BR", "الآمن", "a;b", "x, -y"], "delta": [-1.5, None, 0.0, -1e-9]})
    assert csv(table) == table.write_csv()


@given(EACH_WAY)
def test_latex_keeps_every_character_and_lets_none_act(text: str) -> None:
    written = latex(text)
    assert not re.search(r"(?<!\\)[&%$#_~^<>|]", written)
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", written):
        depth += 1 if brace == "{" else -1
        assert depth in (0, 1)
    assert depth == 0
    spelled = {value: key for key, value in _LATEX.items()}
    pattern = "|".join(re.escape(value) for value in sorted(spelled, key=len, reverse=True))
    assert re.sub(pattern, lambda found: spelled[found[0]], written) == plain(text)
    assert not re.match(r"[\[*]", written), "after a row's end these would be read as its argument"


COMMANDS = {
    *("begin", "end", "toprule", "midrule", "bottomrule", "textbackslash", "textasciitilde", "textasciicircum"),
    *("textless", "textgreater", "textbar", "textquotesingle", "textasciigrave", "\\", *"&%$#_{}"),
}
TOKEN = re.compile(r"\\([A-Za-z]+|.)", re.DOTALL)


def test_a_file_of_hostile_names_has_no_other_command(tmp_path: Path) -> None:
    """As TeX reads it: comments end with their line, `^^5c` would be a backslash, a group ends where it began."""
    attacks = r"\input{/etc/passwd} \write18{id} ^^5cinput x ^^M %\csname def\endcsname \\[2cm] } & \end{tabular}"
    run = renamed(renamed(stored_run(tmp_path, model={"name": f"{attacks}\n{attacks}"}), "bb", attacks), "ss", attacks)
    text = Result(run).export(tmp_path / "t.tex").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    assert len(text.splitlines()) - len(lines) == 2
    assert set(TOKEN.findall("\n".join(lines))) <= COMMANDS
    assert not any("^^" in line or re.search(r"(?<!\\)%", line) for line in lines)
    assert [line.count("\\begin{") for line in lines].count(1) == "\n".join(lines).count("\\end{") == 1
    for line in lines:
        bare = re.sub(r"\\[\\{}]", "", line)
        assert bare.count("{") == bare.count("}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_latex_compiles(tmp_path: Path) -> None:
    hostile(tmp_path / "run").export(tmp_path / "table.tex")
    page = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{table}\end{document}"
    (tmp_path / "page.tex").write_text(page, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    result = Result(stored_run(tmp_path))
    with pytest.raises(ResultError, match=r"ends in \.csv, \.tex"):
        result.export(tmp_path / "table.xlsx")
    with pytest.raises(ResultError, match="Did you mean 'asr'"):
        result.export(tmp_path / "table.csv", "arr")
    (tmp_path / "summary.parquet").unlink()
    with pytest.raises(ResultError, match=r"has no summary\.parquet"):
        result.export(tmp_path / "table.csv")
    assert not list(tmp_path.glob("table*"))


def test_the_command_line_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stored_run(tmp_path / "results" / "2026-01-01T00-00-00_suppress_ss_01234567")

    def command(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["results", *arguments])
        return done.exit_code, done.output

    assert command("suppress", "--export", "t.md") == (0, "Written to t.md\n")
    assert "Attack success rate" in Path("t.md").read_text(encoding="utf-8")
    assert command("suppress", "--export", "u.csv", "--measure", "invalid")[0] == 0
    assert set(pl.read_csv("u.csv")["measure"]) == {"invalid"}
    assert command("suppress", "--export", "t.doc")[0] == 1
    code, text = command("--export", "t.md")
    assert (code, "name the run" in text) == (2, True)
    code, text = command("suppress", "--measure", "asr")
    assert (code, "give --export FILE" in text) == (2, True)
