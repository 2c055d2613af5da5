"""One code for a language, however a data set calls it."""

import pytest

from ssn_probe.languages import language_code

ALIASES = {
    "jv": "jv jw jav jav_Latn jav-Latn-ID Javanese javanese",
    "zh": "zh zh-CN zh_cn zh-Hans zho zho_Hans chi cmn cmn_Hani Chinese Simplified_Chinese 中文",
    "zh-Hant": "zh-TW zh_Hant zho_Hant zh-HK",
    "en": "en EN eng en-US eng_Latn English",
    "ko": "ko kor kor_Hang ko-KR Korean 한국어",
    "sw": "sw swh swa swh_Latn Swahili Kiswahili",
    "bn": "bn ben ben_Beng Bengali Bangla",
    "ar": "ar arb arb_Arab ara Arabic",
    "ne": "ne npi npi_Deva Nepali",
    "fil": "fil tl tgl tgl_Latn Filipino Tagalog",
    "id": "id in ind Indonesian",
    "pt": "pt pt-BR Portuguese",
    "sr-Latn": "sr-Latn srp_Latn",
    "es": "es sp SP Spanish",
    "ja": "ja jp jpn_Jpan",
    "qaa": "qaa",
    "yue": "yue yue_Hant Cantonese",
}


@pytest.mark.parametrize(("code", "names"), ALIASES.items(), ids=list(ALIASES))
def test_a_language_has_one_code(code: str, names: str) -> None:
    found = {name: language_code(name) for name in names.split()}
    assert found == dict.fromkeys(found, code)


WORDS = "text tags source label Label index meta prompt goal category und mul xx text_en_ Behavior SemanticCategory"
WORDS += " en_prompt language note a- -"
ODD = ("", " ", "x" * 500, "en\0", "Ger\0man", "\ud800", "{}", "1", "e\nn")


@pytest.mark.parametrize("name", [*ODD, *WORDS.split()])
def test_what_is_no_language(name: str) -> None:
    assert language_code(name) is None


def test_a_code_of_a_code_is_itself() -> None:
    for code in ALIASES:
        assert language_code(code) == code
