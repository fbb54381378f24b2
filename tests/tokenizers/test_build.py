"""Configs, names and files: which tokenizer they give, and how a bad one is refused."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken
import tiktoken.load
import torch

from glassgpt.errors import UserError
from glassgpt.tokenizers import Tokenizer, TokenizerConfig, build_tokenizer, load_tokenizer
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.build import open_tokenizer
from glassgpt.tokenizers.char import CharTokenizer
from glassgpt.tokenizers.pretrained import PRETRAINED, PretrainedTokenizer, is_at_hand
from glassgpt.tokenizers.spm import SentencePieceTokenizer
from glassgpt.tokenizers.stream import StreamDecoder


def build(**fields) -> Tokenizer:
    return build_tokenizer(TokenizerConfig(**fields), whole_text="hello, wörld", train_text="hello hello")


def test_char_is_built_from_the_whole_text() -> None:
    tokenizer = build(name="char", special_tokens=("<|user|>",))
    assert tokenizer.decode(tokenizer.encode("wörld")) == "wörld"
    assert tokenizer.special_tokens == {"<|user|>": 10}
    assert isinstance(tokenizer, Tokenizer)


def test_bpe_is_trained_on_the_training_text_alone() -> None:
    tokenizer = build(name="bpe", vocab_size=300, special_tokens=("<|user|>",))
    assert isinstance(tokenizer, BPETokenizer)
    assert tokenizer.merges == BPETokenizer.train("hello hello", vocab_size=300).merges
    assert tokenizer.vocab_size == 256 + len(tokenizer.merges) + 1


def test_a_file_is_loaded(tmp_path: Path) -> None:
    CharTokenizer("abc").save(tmp_path / "mine.json")
    assert build(name=str(tmp_path / "mine.json")).encode("cab") == [2, 0, 1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "gpt-2"}, "unknown tokenizer 'gpt-2': did you mean 'gpt2'"),
        ({"pattern": "gpt4"}, "unknown split pattern 'gpt4'"),
        ({"name": "bpe", "vocab_size": 200}, "vocab_size is 200, but a bpe tokenizer needs at least 256"),
        ({"name": "cl100k"}, "did you mean 'cl100k_base'"),
        ({"special_tokens": ("",)}, "a special token must be a text of one character or more"),
        ({"special_tokens": ("a", "a")}, "'a' is given twice"),
        ({"name": "none/mine.json"}, "there is no tokenizer file 'none/mine.json'"),
        ({"name": "none.model"}, "there is no tokenizer file 'none.model'"),
    ],
)
def test_bad_config_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(**fields)


GOOD = {"format": "glassgpt-tokenizer", "version": 1, "type": "char", "alphabet": ["a"], "special_tokens": []}


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (json.dumps(GOOD).encode()[:-5], "not JSON"),
        (b"[1]", '"format"'),
        (b'{"model": {"type": "BPE"}}', '"format"'),
        (json.dumps(GOOD | {"version": 2}).encode(), "format version 2, but this glassgpt reads version 1"),
        (json.dumps(GOOD | {"type": "wordlevel"}).encode(), "its type is 'wordlevel'; known types: bpe, char"),
        (json.dumps(GOOD | {"type": ["char"]}).encode(), "its type is"),
        (json.dumps(GOOD | {"alphabet": ["ab"]}).encode(), "single characters"),
        (json.dumps(GOOD | {"alphabet": [7]}).encode(), "single characters"),
        (json.dumps(GOOD | {"alphabet": 7}).encode(), "not iterable"),
        (json.dumps(GOOD | {"special_tokens": [[]]}).encode(), "a special token must be a text"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "alphabet"}).encode(), "the field 'alphabet' is missing"),
        (json.dumps(GOOD | {"type": "bpe"}).encode(), "the field 'vocab' is missing"),
        (json.dumps(GOOD | {"type": "tiktoken", "ranks": {"%": 1}}).encode(), "is damaged"),
        (json.dumps(GOOD | {"type": "sentencepiece", "model": "AAAA"}).encode(), "not a SentencePiece model"),
    ],
)
def test_damaged_file_is_refused_with_its_name(contents: bytes, reason: str, tmp_path: Path) -> None:
    if b"sentencepiece" in contents:
        pytest.importorskip("sentencepiece")
    path = tmp_path / "tokenizer.json"
    path.write_bytes(contents)
    with pytest.raises(UserError, match=reason) as caught:
        load_tokenizer(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"vocab": {"a": 0}},
        {"vocab": []},
        {"merges": ["a b c"]},
        {"merges": ["\u4e00 a"]},
        {"merges": [1]},
        {"merges": None},
        {"pattern": "none"},
        {"pattern": None},
        {"special_tokens": {"<end>": "x"}},
        {"special_tokens": {"<end>": 0}},
    ],
)
def test_damaged_bpe_file_is_refused(change: dict, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    BPETokenizer.train("ab ab", 258, ["<end>"]).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match="is damaged"):
        load_tokenizer(path)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tokenizer.json"
    CharTokenizer("abc").save(path)

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(UserError, match=r"tokenizer.json: No space left on device"):
        CharTokenizer("xyz").save(path)
    assert load_tokenizer(path).encode("b") == [1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokenizer.json"]


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "tokenizer.json"):
        with pytest.raises(UserError, match=f"cannot write {path}: "):
            CharTokenizer("abc").save(path)


def test_pretrained_file_needs_no_network(test_data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test_data("tiktoken")
    tokenizer = build(name="gpt2")
    assert tokenizer.encode("hello<|endoftext|>", allowed_special="all") == [31373, 50256]
    assert tokenizer.vocab_size == 50257
    tokenizer.save(tmp_path / "gpt2.json")
    monkeypatch.setattr("tiktoken.get_encoding", None)
    loaded = load_tokenizer(tmp_path / "gpt2.json")
    assert loaded.name == "gpt2"
    assert loaded.to_dict() == tokenizer.to_dict()
    assert loaded.encode("hello<|endoftext|>") == tokenizer.encode("hello<|endoftext|>") != [31373, 50256]


def test_no_network_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str) -> None:
        raise OSError("no network")

    monkeypatch.setattr("tiktoken.get_encoding", offline)
    with pytest.raises(UserError, match=r"'o200k_base' \(no network\).*TIKTOKEN_CACHE_DIR"):
        PretrainedTokenizer.from_name("o200k_base")


@pytest.mark.parametrize("name", PRETRAINED)
def test_what_is_at_hand_is_what_tiktoken_would_not_download(
    name: str, test_data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tiktoken's own constructor says which files it reads: with each of them missing, or damaged, it downloads."""
    from tiktoken_ext import openai_public

    cache = tmp_path / "cache"
    shutil.copytree(test_data("tiktoken"), cache)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
    assert is_at_hand(name)
    read: list[str] = []
    original = tiktoken.load.read_file_cached
    monkeypatch.setattr(
        tiktoken.load, "read_file_cached", lambda path, digest=None: read.append(path) or original(path, digest)
    )
    getattr(openai_public, name)()
    assert read
    for address in read:
        file = cache / hashlib.sha1(address.encode()).hexdigest()
        contents = file.read_bytes()
        file.chmod(0o644)
        file.write_bytes(contents[:-1])
        assert not is_at_hand(name)
        file.unlink()
        assert not is_at_hand(name)
        file.write_bytes(contents)
        assert is_at_hand(name)


def test_nothing_is_at_hand_where_tiktoken_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    assert not is_at_hand("gpt2")
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR")
    monkeypatch.setenv("DATA_GYM_CACHE_DIR", str(tmp_path))
    assert not is_at_hand("gpt2")


def with_gaps() -> PretrainedTokenizer:
    """A published vocabulary in small: the special token stands apart, and no token has the ids before it."""
    ranks = {base64.b64encode(bytes([byte])).decode(): byte for byte in range(256)}
    return PretrainedTokenizer.from_dict(
        {"name": "gaps", "pattern": r"\S+|\s+", "special_tokens": {"<end>": 300}, "ranks": ranks}
    )


def test_an_id_that_stands_for_nothing_decodes_to_nothing() -> None:
    tokenizer = with_gaps()
    assert tokenizer.vocab_size == 301
    assert tokenizer.decode([104, 256, 105, 299, 300]) == "hi<end>"
    assert tokenizer.token_bytes(256) == b""
    stream = StreamDecoder(tokenizer)
    assert "".join(map(stream.feed, [104, 256, 105, 299, 300])) == "hi<end>"
    for outside in (-1, 301):
        with pytest.raises(UserError, match=f"token id {outside} is outside the vocabulary"):
            tokenizer.decode([outside])


@pytest.mark.parametrize("tokenizer", [CharTokenizer("abc"), BPETokenizer.train("ab ab", 258), with_gaps()])
def test_each_kind_loads_its_own_files_alone(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    for kind in (CharTokenizer, BPETokenizer, PretrainedTokenizer, SentencePieceTokenizer):
        if isinstance(tokenizer, kind):
            assert kind.load(path).to_dict() == tokenizer.to_dict()
        else:
            with pytest.raises(UserError, match=r"tokenizer\.json' is of type '\w+', not '\w+'"):
                kind.load(path)


NOT_IDS = [
    5.5,
    np.float32(1),
    torch.tensor(1.5),
    True,
    np.True_,
    torch.tensor(True),
    "1",
    b"1",
    None,
    [1],
    np.array([1]),
]
NOT_ROWS = [
    3, "ab", b"ab", None, [[1]], np.array(1), np.array([[1, 2]]), np.array([1.0]), np.array([True]),
    torch.tensor(1), torch.tensor([[1, 2]]), torch.tensor([1.5]), torch.tensor([False]),
    torch.tensor([1], device="meta"),
    *([id] for id in NOT_IDS),
]  # fmt: skip
ROWS = [
    [0, 1], (0, 1), range(2), iter([0, 1]), np.arange(2), np.arange(2, dtype=np.uint16), [np.int64(0), torch.tensor(1)],
    torch.arange(2), torch.arange(2, dtype=torch.int16),
]  # fmt: skip


@pytest.fixture(scope="module", params=["char", "bpe", "published", "sentencepiece"])
def any_tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "sentencepiece":
        sentencepiece = pytest.importorskip("sentencepiece")
        file = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["ab ab abba"]), model_writer=file, vocab_size=20, hard_vocab_limit=False,
            minloglevel=2,
        )  # fmt: skip
        return SentencePieceTokenizer(file.getvalue())
    return {"char": CharTokenizer("abc"), "bpe": BPETokenizer.train("ab ab", 258), "published": with_gaps()}[
        request.param
    ]


@pytest.mark.parametrize("ids", NOT_ROWS, ids=repr)
def test_what_is_no_row_of_ids_is_refused(any_tokenizer: Tokenizer, ids: Any) -> None:
    with pytest.raises(UserError, match="ids must be integers in one dimension"):
        any_tokenizer.decode(ids)


@pytest.mark.parametrize("id", NOT_IDS, ids=repr)
def test_what_is_no_id_is_refused(any_tokenizer: Tokenizer, id: Any) -> None:
    for function in (any_tokenizer.token_bytes, StreamDecoder(any_tokenizer).feed):
        with pytest.raises(UserError, match="an id must be an integer, not"):
            function(id)


@pytest.mark.parametrize("id", [-1, -(2**70), 10**9, 2**70], ids=repr)
def test_ids_outside_the_vocabulary_are_refused(any_tokenizer: Tokenizer, id: int) -> None:
    outside = rf"token id {id} is outside the vocabulary: ids run from 0 to {any_tokenizer.vocab_size - 1}"
    for function in (
        any_tokenizer.token_bytes,
        StreamDecoder(any_tokenizer).feed,
        lambda id: any_tokenizer.decode([id]),
    ):
        with pytest.raises(UserError, match=outside):
            function(id)


def test_any_row_of_integers_is_decoded() -> None:
    tokenizer = CharTokenizer("ab")
    assert [tokenizer.decode(ids) for ids in ROWS] == ["ab"] * len(ROWS)  # type: ignore[arg-type]
    for id in (1, np.int64(1), np.array(1), torch.tensor(1)):
        assert StreamDecoder(tokenizer).feed(id) == "b"  # type: ignore[arg-type]
        assert tokenizer.token_bytes(id) == b"b"  # type: ignore[arg-type]


def test_what_is_no_file_is_no_tokenizer(tmp_path: Path) -> None:
    """Reading a device or a pipe may never end, and a huge file would be held whole."""
    os.mkfifo(tmp_path / "pipe.json")
    os.mkfifo(tmp_path / "pipe.model")
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(40 << 30)  # sparse: it takes no room
    for name in ("/dev/zero", str(tmp_path / "pipe.json"), str(tmp_path / "pipe.model")):
        with pytest.raises(UserError, match="is not a file on the disk but a pipe or a device"):
            open_tokenizer(name)
    with pytest.raises(UserError, match=r"huge\.json' has 42\.9 GB, so it is not a tokenizer file"):
        open_tokenizer(str(tmp_path / "huge.json"))
    with pytest.raises(UserError, match="unknown tokenizer ''"):
        open_tokenizer("")
