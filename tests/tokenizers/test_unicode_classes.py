"""Our classes of characters are those of the `tokenizers` library, for every character there is."""

from __future__ import annotations

import pytest

from glassgpt.tokenizers.normalizers import build_normalizer, unicode_form
from glassgpt.tokenizers.splitters import build_splitter

tokenizers = pytest.importorskip("tokenizers")

CHARACTERS = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
SPELLED = {  # around each character: what would join, reorder or hide it
    "alone": "x{}x",
    "before a mark": "x{}\u0345\u0316\u0334",
    "after a mark": "x\u0345\u0316{}x",
}


@pytest.mark.parametrize("spelled", SPELLED)
@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_normal_forms(form: str, spelled: str) -> None:
    text = "".join(SPELLED[spelled].format(character) for character in CHARACTERS)
    assert unicode_form(form, text) == getattr(tokenizers.normalizers, form)().normalize_str(text)


@pytest.mark.parametrize("setting", ["clean_text", "handle_chinese_chars", "strip_accents", "lowercase"])
def test_steps_of_bert(setting: str) -> None:
    settings = dict.fromkeys(("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"), False)
    settings[setting] = True
    text = "".join(f"x{character}x" for character in CHARACTERS)
    theirs = tokenizers.normalizers.BertNormalizer(**settings).normalize_str(text)
    assert build_normalizer({"type": "BertNormalizer", **settings})(text) == theirs


def test_words() -> None:
    text = "".join(f"x{character}x" for character in CHARACTERS)
    for ours, theirs in (
        ({"type": "BertPreTokenizer"}, tokenizers.pre_tokenizers.BertPreTokenizer()),
        ({"type": "WhitespaceSplit"}, tokenizers.pre_tokenizers.WhitespaceSplit()),
    ):
        assert build_splitter(ours)(text, True) == [word for word, _ in theirs.pre_tokenize_str(text)]


def test_strip() -> None:
    text = "".join(CHARACTERS[:0x3001])
    spec = {"type": "Strip", "strip_left": True, "strip_right": True}
    for part in (text[start:] for start in range(0, 0x3001, 17)):
        assert build_normalizer(spec)(part) == tokenizers.normalizers.Strip().normalize_str(part)
