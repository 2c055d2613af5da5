"""What people write passes in every language; what a random model writes does not."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from sentences import SENTENCES

from ssn_probe.errors import ResultError
from ssn_probe.languages import detect, is_gibberish, language_of, off_language, scripts_in, scripts_of

EVERY = [(language, text) for language, texts in SENTENCES.items() for text in (*texts, " ".join(texts))]
OTHER_TEXTS = {
    "short": "No.",
    "number": "3.14",
    "counting": "1, 2, 3, 4, 5, 6, 7, 8, 9, 10",
    "address": "http://example.org/a/b?c=d",
    "code": "```python\nfor row in rows:\n    print(row['a'], row['b'])\n```",
    "bare code": "def area(r):\n    return math.pi * r ** 2\n\nassert round(area(2), 3) == 12.566",
    "heading": "Results\n==========================================\nAll tests pass.",
    "several languages": "Hola means hello, 你好 too, and привет in Russian, สวัสดี in Thai.",
    "mathematics": "x² + y² = z², so z = √(x² + y²)",
    "loop at the end": "Sure, here is how you do it. " + "Then fold it again. " * 20,
    "cut within a character": "ขออภัย ฉันไม่สามารถช่ว\ufffd",
    "three times no": "No, no, no! I will not do that.",
}
NOISE = {
    "random pieces": (
        " actualidad benoем случайahir یونیésévelконом rä Afrique elett비아็นático 그녀에게 zonder игрыchemas秘 Kort",
        " بالت RCA نص сExt Tecn قاعةáníkąbat aesthetics.gridării jusqu κρι You\\)-\\(óżG deck نہ дося) relative terzo",
        "ffiხოვ сиг indios الأسبوعguy lesen స్వ'équipe architecturesappayas ترام_client behandelt ويمfoldcompute",
        "yllabsorbosl SFoptingskirtsimedia murder supervise crypto fluids creativityCOMM negotiationEngutiveTuesday "
        "Pilate showsapoyonexe Buzz Swimming storyline Scratch temp",
        "timeout destiny millions reputable murdron Vesteen townsho postoperative lect planetSquochrom itermissible "
        "Density counterparts CabinetHumans MarshKenn embracingdecl rounding summarized assume privileged",
        "w2 w30 w48 w45 w42 w10 w1 w25 w42 w22 w24 w35",
    ),
    "loop": ("the the the the the the", "I can't help. " * 20, "抱歉" * 8, "a" * 40, "of the of of the the " * 8),
    "counted loop": (" ".join(f"{number}. Fold it." for number in range(20)),),
    "empty": ("", " \n\t", "\ufffd"),
    "signs": ("?!…", "👍", "!" * 60, "{}[]();: a <<>> ** //"),
    "broken bytes": ("ab\ufffd\ufffdcd\ufffd ef\ufffd\ufffd\ufffd gh",),
}


@pytest.mark.parametrize(("language", "text"), EVERY)
def test_what_people_write_is_text_in_its_language(language: str, text: str) -> None:
    assert is_gibberish(text) is None
    assert off_language(text, language) is None
    assert language_of(text, SENTENCES) in (language, None)


@pytest.mark.parametrize("text", OTHER_TEXTS.values(), ids=OTHER_TEXTS)
def test_code_numbers_and_short_answers_are_texts(text: str) -> None:
    assert is_gibberish(text) is None


@pytest.mark.parametrize("text", [text for texts in NOISE.values() for text in texts])
def test_noise_is_no_text(text: str) -> None:
    assert is_gibberish(text)


@pytest.mark.parametrize(
    ("text", "reason"), [("a" * 4_000 + "b", "one piece repeated"), ("the cat " * 3_000, "a few words repeated")]
)
def test_a_long_loop_is_found_at_once(text: str, reason: str) -> None:
    assert is_gibberish(text) == reason


def test_most_languages_are_recognised() -> None:
    told = [language_of(" ".join(texts), SENTENCES) == language for language, texts in SENTENCES.items()]
    assert sum(told) == len(told)


@pytest.mark.parametrize(
    ("text", "language", "reason"),
    [
        (SENTENCES["ru"][1], "en", "in Cyrillic script"),
        (SENTENCES["en"][1], "ko", "in Latin script"),
        (SENTENCES["en"][1], "sw", "in English"),
        (SENTENCES["sw"][2], "it", "in Swahili"),
        (SENTENCES["zh"][2], "ja", None),  # both are written in Han
        (SENTENCES["en"][1], "qaa", None),
        ("No.", "it", None),
        ("```python\nprint('a long enough line of code')\n```", "th", None),
        ("이 작업에는 Python을 쓰세요.", "ko", None),
        ("Ово је мој чамац од папира.", "sr-Latn", "in Cyrillic script"),
        ("Ово је мој чамац од папира.", "sr", None),
    ],
)
def test_texts_in_another_language(text: str, language: str, reason: str | None) -> None:
    assert off_language(text, language) == reason


def test_a_choice_of_languages_is_kept_by_its_own_names() -> None:
    assert language_of(SENTENCES["zh"][2], ("zh-Hant", "ko")) == "zh-Hant"
    assert language_of(SENTENCES["ko"][2], ("qaa", "qab")) is None
    assert language_of("Si.", ("es", "it")) is None


def test_scripts_of_texts_and_languages() -> None:
    assert scripts_in("ab 1 ж?") == {"Latin": 2 / 3, "Cyrillic": 1 / 3}
    assert scripts_in("12 !") == {}
    assert scripts_of("ja") == ("Hiragana", "Katakana", "Han")
    assert scripts_of("ko") == ("Hangul", "Han")
    assert scripts_of("qaa") == scripts_of("no language") == ()
    assert {scripts_of(language)[0] in scripts_in(texts[0]) for language, texts in SENTENCES.items()} == {True}


@pytest.fixture
def unread() -> Iterator[None]:
    """As at the start of a process: the weights of the identifier have not been read."""
    detect._identifier.cache_clear()
    yield
    detect._identifier.cache_clear()


@pytest.mark.usefixtures("unread")
def test_a_folder_of_temporary_files_without_room_is_no_bug(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The identifier writes its weights there, uncompressed, to read them."""

    def full(*_arguments: object, **_named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("py3langid.modelio.shutil.copyfileobj", full)
    with pytest.raises(ResultError, match="No space left") as caught:
        language_of("Why do people build lighthouses on rocks?", ("en", "de"))
    assert str(tmp_path) in caught.value.message
    assert "set TMPDIR to a folder" in str(caught.value.hint)
