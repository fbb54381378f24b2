"""Tokens: what the page is told about a text is what the tokenizers say."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from app_client import Client

from glassgpt.server.views.tokens import MOST_TOKENS
from glassgpt.tokenizers import load_tokenizer
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.pretrained import PRETRAINED, PretrainedTokenizer

TEXT = "The cat\nsat on a naïve mat 👩‍🚀"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder in which the server was started is empty."""
    monkeypatch.chdir(tmp_path)


def split(client: Client, text: str, **fields: Any) -> dict[str, Any]:
    status, answer = client.post("/api/tokens", {"text": text, **fields})
    assert status == 200, answer
    return {entry["name"]: entry for entry in answer["tokenizers"]}


def written(token: dict[str, Any]) -> bytes:
    return bytes.fromhex(token["bytes"]) if "bytes" in token else token["text"].encode()


def test_the_tokens_of_a_run_spell_the_text(client: Client, trained_runs: Path) -> None:
    found = split(client, TEXT, run="pairs")["run"]
    tokenizer = load_tokenizer(trained_runs / "pairs" / "tokenizer.json")
    assert [token["id"] for token in found["tokens"]] == tokenizer.encode(TEXT)
    assert b"".join(map(written, found["tokens"])) == TEXT.encode()
    assert found["sizes"] == [len(tokenizer.token_bytes(id)) for id in tokenizer.encode(TEXT)]
    assert (found["kind"], found["vocab_size"], found["count"]) == ("bpe", 290, len(found["tokens"]))
    assert isinstance(tokenizer, BPETokenizer)
    data, ends = TEXT.encode(), [*found["words"][1:], len(TEXT.encode())]
    assert [data[a:b].decode() for a, b in zip(found["words"], ends, strict=True)] == tokenizer.words(TEXT)


def test_bytes_are_told_where_a_token_is_no_whole_character(client: Client) -> None:
    tokens = split(client, "é", run="pairs")["run"]["tokens"]
    assert [token["bytes"] for token in tokens] == ["c3", "a9"]


def test_char_has_the_alphabet_of_the_text(client: Client) -> None:
    found = split(client, "abca")["char"]
    assert [token["id"] for token in found["tokens"]] == [0, 1, 2, 0]
    assert found["vocab_size"] == 3
    assert found["words"] is None


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_published_vocabulary_that_is_at_hand(name: str, client: Client, test_data) -> None:
    test_data("tiktoken")
    found = split(client, TEXT, names=[name])[name]
    assert [token["id"] for token in found["tokens"]] == PretrainedTokenizer.from_name(name).encode(TEXT)
    assert sum(found["sizes"]) == len(TEXT.encode())


def test_what_is_not_at_hand_says_how_to_get_it(client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """Nothing is downloaded: tests refuse the network, and tiktoken is not asked."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("tiktoken.get_encoding", None)
    found = split(client, "a")
    for name in PRETRAINED:
        assert not found[name]["available"]
        assert f"glassgpt tokenizer info --tokenizer {name}" in found[name]["how"]
    assert ".model" in found["sentencepiece"]["how"]
    status, answer = client.post("/api/merges", {"text": "a", "name": "gpt2"})
    assert (status, "not at hand" in answer["error"]) == (400, True)


def test_a_sentencepiece_file_beside_the_runs(client: Client) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat on the mat"] * 20), model_writer=file, vocab_size=300, model_type="bpe",
        byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    Path("cats.model").write_bytes(file.getvalue())
    Path("broken.model").write_bytes(b"not one")
    found = split(client, "the cat")
    assert "sentencepiece" not in found
    assert found["cats.model"]["sizes"][0] == len(written(found["cats.model"]["tokens"][0])) - 1  # it adds a space
    assert sum(found["cats.model"]["sizes"]) == 7
    assert "broken.model" in found["broken.model"]["problem"]
    assert split(client, "a   b")["cats.model"]["sizes"] is None  # it joins spaces, so its tokens do not spell the text


def test_a_long_text_is_counted_whole_and_shown_in_part(client: Client) -> None:
    found = split(client, "the cat sat. " * 1000, run="letters")["run"]
    assert (found["count"], len(found["tokens"]), len(found["sizes"])) == (13_000, MOST_TOKENS, MOST_TOKENS)


def test_bad_texts(client: Client) -> None:
    assert split(client, "cat 字", run="letters")["run"]["problem"].startswith("character '字' (U+5B57) at position 4")
    for body, said in (
        ({"text": ""}, "the text is empty"),
        (b'{"text": "\\ud83d"}', "half a character (a lone surrogate)"),
        ({"text": "a" * 200_001}, "at most 200,000"),
        ({"txt": "a"}, "request.txt"),
        ({}, "text"),
        ({"text": 5}, "request.text"),
        (b"[]", "not JSON"),
    ):
        status, answer = client.post("/api/tokens", body)
        assert (status, said in answer["error"]) == (400, True), answer
    assert client.post("/api/tokens", {"text": "a", "run": "../letters"})[0] == 404


def test_how_a_word_is_built(client: Client, trained_runs: Path) -> None:
    tokenizer = load_tokenizer(trained_runs / "pairs" / "tokenizer.json")
    assert isinstance(tokenizer, BPETokenizer)
    status, answer = client.post("/api/merges", {"text": " sleep", "run": "pairs", "name": "run"})
    assert status == 200
    assert b"".join(map(written, answer["steps"][0]["parts"])) == b" sleep"
    assert len(answer["steps"][0]["parts"]) == 6
    assert [part["id"] for part in answer["steps"][-1]["parts"]] == tokenizer.encode(" sleep")
    for before, after in zip(answer["steps"], answer["steps"][1:], strict=False):
        place = before["place"]
        ranks = [rank for rank in before["ranks"] if rank is not None]
        assert before["ranks"][place] == min(ranks) == after["parts"][place]["id"]
        joined = written(before["parts"][place]) + written(before["parts"][place + 1])
        assert written(after["parts"][place]) == joined
    assert answer["steps"][-1]["place"] is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"text": "a", "name": "char"}, "char does not merge bytes"),
        ({"text": "a", "name": "../x"}, "there is no tokenizer '../x'"),
        ({"text": "", "name": "run"}, "this word has 0 bytes"),
        ({"text": "a" * 101, "name": "run"}, "this word has 101 bytes"),
    ],
)
def test_a_word_that_cannot_be_built(client: Client, fields: dict[str, str], said: str) -> None:
    status, answer = client.post("/api/merges", {"run": "pairs", **fields})
    assert (status, said in answer["error"]) == (400, True), answer


def test_a_tokenizer_that_was_replaced_is_read_again(
    trained_runs: Path, serve: Callable[[Path], Client], tmp_path: Path
) -> None:
    import shutil

    root = Path(shutil.copytree(trained_runs, tmp_path / "runs"))
    client = serve(root)
    assert split(client, "cat", run="pairs")["run"]["kind"] == "bpe"
    shutil.copyfile(root / "letters" / "tokenizer.json", root / "pairs" / "tokenizer.json")
    assert split(client, "cat", run="pairs")["run"]["kind"] == "char"
    (root / "pairs" / "tokenizer.json").unlink()
    assert split(client, "cat", run="pairs")["run"]["problem"] == "run pairs has no tokenizer.json"
