"""SentencePiece models: the same ids and text as the library's own."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from glassgpt.errors import UserError
from glassgpt.tokenizers import load_tokenizer
from glassgpt.tokenizers.spm import SentencePieceTokenizer
from glassgpt.tokenizers.stream import StreamDecoder

TEXT = "the quick brown fox jumps over the lazy dog and the dog sleeps while the fox runs over the hill\n" * 20


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def model(request: pytest.FixtureRequest) -> bytes:
    sentencepiece = pytest.importorskip("sentencepiece")
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=file,
        vocab_size=310 if request.param == "bpe" else 300,
        model_type=request.param,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return file.getvalue()


@pytest.mark.parametrize("text", ["", "the fox", "the dog 字 🙂 over", "un-known", " leading", "over the hill é"])
def test_ids_and_text_are_the_librarys(model: bytes, text: str) -> None:
    from sentencepiece import SentencePieceProcessor

    reference = SentencePieceProcessor(model_proto=model)
    tokenizer = SentencePieceTokenizer(model)
    ids = tokenizer.encode(text)
    assert ids == reference.encode(text) == tokenizer.encode_to_numpy(text).tolist()
    assert tokenizer.decode(ids) == reference.decode(ids)
    decoder = StreamDecoder(tokenizer)
    assert "".join(map(decoder.feed, ids)) + decoder.flush() == tokenizer.decode(ids)


def test_control_symbols_are_the_special_tokens(model: bytes) -> None:
    tokenizer = SentencePieceTokenizer(model)
    assert tokenizer.special_tokens == {"<s>": 1, "</s>": 2}
    assert not {1, 2} & set(tokenizer.encode("the fox</s>"))
    ids = tokenizer.encode("the fox</s>", allowed_special={"</s>"})
    assert ids[-1] == 2
    assert tokenizer.decode(ids) == "the fox</s>"
    assert tokenizer.token_bytes(2) == b""


def test_files(model: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.model").write_bytes(model)
    tokenizer = load_tokenizer(tmp_path / "x.model")
    tokenizer.save(tmp_path / "x.json")
    assert load_tokenizer(tmp_path / "x.json").encode("the hill") == tokenizer.encode("the hill")


def test_bad_models_are_refused(model: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.model").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"bad.model' .* not a SentencePiece model"):
        load_tokenizer(tmp_path / "bad.model")
    with pytest.raises(UserError, match="token id 99999 "):
        SentencePieceTokenizer(model).decode([99999])


def test_missing_package_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    (tmp_path / "x.model").write_bytes(b"")
    with pytest.raises(UserError, match=r"pip install 'glassgpt\[sentencepiece\]'"):
        load_tokenizer(tmp_path / "x.model")
