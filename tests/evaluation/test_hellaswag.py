"""Items of both forms, what is refused with its place, and the three accuracies against a loop in float64."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from glassgpt.data.download import DownloadError
from glassgpt.errors import UserError
from glassgpt.evaluation import hellaswag
from glassgpt.evaluation.hellaswag import Accuracies, HellaSwag, Item, clean, load_items, parse_items
from glassgpt.evaluation.suites import open_suite
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.runtime.device import Runtime
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.char import CharTokenizer

CPU = Runtime(torch.device("cpu"), "float32")
PLAIN = {"ctx": "A man sits. he", "endings": ["runs.", "sits.", "is a cat.", "é."], "label": 2}
PUBLISHED = {
    "activity_label": "Roof [step] work",
    "ctx_a": "How to [title] fix it  fast.",
    "ctx_b": "the Man",
    "ctx": "not this one",
    "endings": [" goes [substeps] home", "b", "c", "d"],
    "label": "1",
}


def lines(*items: Any) -> bytes:
    return "".join(json.dumps(item) + "\n" for item in items).encode()


def test_the_two_forms_of_an_item() -> None:
    plain, published = parse_items(lines(PLAIN, PUBLISHED), Path("x"))
    assert plain == Item("A man sits. he", ("runs.", "sits.", "is a cat.", "é."), 2)
    assert published == Item("Roof work: How to. fix it fast. The man", ("goes home", "b", "c", "d"), 1)


@pytest.mark.extras
def test_cleaning_is_that_of_lm_eval() -> None:
    utils = pytest.importorskip("lm_eval.tasks.hellaswag.utils")
    for text in ("a [title] b", " [header] Tie. [title] Up  [x", "a   b", "[[a] b]", "\ttab [step]\n"):
        assert clean(text) == utils.preprocess(text)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{oh", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[1]", "is not a HellaSwag item: it is not an object"),
        (lines({"ctx": "a", "label": 0}), "is not a HellaSwag item: it has no endings"),
        (lines({"endings": ["a"] * 4, "label": 0}), "is not a HellaSwag item: it has no ctx"),
        (lines({"ctx": 3, "endings": ["a"] * 4, "label": 0}), "is not a HellaSwag item: ctx is not a string"),
        (
            lines({"ctx": "a", "endings": ["a"] * 3, "label": 0}),
            "is not a HellaSwag item: endings is not a list of 4 strings",
        ),
        (
            lines({"ctx": "a", "endings": [1, 2, 3, 4], "label": 0}),
            "is not a HellaSwag item: endings is not a list of 4 strings",
        ),
        (lines({"ctx": "a", "endings": ["a"] * 4}), "is not a HellaSwag item: it has no label"),
        (
            lines({"ctx": "a", "endings": ["a"] * 4, "label": 4}),
            "is not a HellaSwag item: label is 4, not 0, 1, 2 or 3",
        ),
        (lines({"ctx": "a", "endings": ["a"] * 4, "label": True}), "is not a HellaSwag item: label is True"),
        (lines({"ctx": "a", "endings": ["a"] * 4, "label": ""}), "is not a HellaSwag item: label is ''"),
        (
            lines({"ctx": " ", "endings": ["a"] * 4, "label": 1}),
            "is not a HellaSwag item: its text or one of its endings is empty",
        ),
        (lines({**PUBLISHED, "ctx_b": None}), "is not a HellaSwag item: ctx_b is not a string"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "items.jsonl"
    path.write_bytes(lines(PLAIN) + b"\n" + line)
    with pytest.raises(UserError, match=re.escape(f"{path}, line 3 {reason}")):
        load_items(path)


def test_other_files_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"\n")
    with pytest.raises(UserError, match=r"empty\.jsonl is empty"):
        load_items(tmp_path / "empty.jsonl")
    with pytest.raises(UserError, match=r"cannot read the HellaSwag file .*none\.jsonl: No such file"):
        load_items(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="limit 0 is out of range"):
        load_items(tmp_path / "none.jsonl", limit=0)
    with pytest.raises(UserError, match="unknown suite 'helaswag': did you mean 'hellaswag'"):
        open_suite("helaswag", CharTokenizer.train("ab"))


def test_the_validation_split_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path))
    monkeypatch.setattr(hellaswag, "N_ITEMS", 2)
    asked = []

    def fetch(url: str, seconds: float) -> bytes:
        asked.append(url)
        return lines(*[PUBLISHED] * len(asked))

    monkeypatch.setattr(hellaswag, "fetch", fetch)
    with pytest.raises(UserError, match="sent 1 items where 2 were expected"):
        load_items()
    assert len(load_items()) == len(load_items()) == 2
    assert len(asked) == 2


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path))

    def fetch(url: str, seconds: float) -> bytes:
        raise DownloadError("no route")

    monkeypatch.setattr(hellaswag, "fetch", fetch)
    with pytest.raises(UserError, match=r"could not be downloaded from .*: no route; .* or name one with file"):
        load_items()


def test_three_accuracies_against_a_loop() -> None:
    """Endings of different lengths in characters and in tokens, so that the three rules choose differently."""
    endings = ("runs home", "sits.", "is a very long one, a very long one", "é漢", "aaaaaaaa", "to")
    items = [
        Item(f"A man {verb} and", tuple(endings[(start + i * step) % 6] for i in range(4)), (start + step) % 4)
        for verb in ("sits", "runs") for start in range(6) for step in (1, 5)
    ]  # fmt: skip
    text = " ".join(item.context + " ".join(item.endings) for item in items)
    tokenizer = BPETokenizer.train(text, 290)
    torch.manual_seed(3)
    model = GPT2(GPT2Config(tokenizer.vocab_size, 32, n_layer=2, n_head=2, n_embd=16))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    got = HellaSwag(items, tokenizer).evaluate(model, CPU)

    exact = model.double()
    right = {"acc": 0, "acc_norm": 0, "acc_norm_tokens": 0}
    for item in items:
        n_context = len(tokenizer.encode(item.context))
        best: dict[str, list[float]] = {name: [] for name in right}
        for ending in item.endings:
            ids = tokenizer.encode(f"{item.context} {ending}")
            with torch.no_grad():
                logprobs = exact(torch.tensor([ids]))[0].log_softmax(dim=-1)
            total = sum(logprobs[at - 1, ids[at]].item() for at in range(n_context, len(ids)))
            best["acc"].append(total)
            best["acc_norm"].append(total / len(ending))
            best["acc_norm_tokens"].append(total / (len(ids) - n_context))
        for name, totals in best.items():
            right[name] += totals.index(max(totals)) == item.label
    n = len(items)
    assert len(set(right.values())) == 3, "the three rules should differ here, or the test shows little"
    assert (got.acc, got.acc_norm, got.acc_norm_tokens) == tuple(count / n for count in right.values())
    assert got.items == n


def test_standard_errors() -> None:
    got = Accuracies(0.25, 0.5, 1.0, items=101)
    assert got.standard_error("acc") == pytest.approx(math.sqrt(0.25 * 0.75 / 100))
    assert got.figures() == {
        "acc": 0.25, "acc_stderr": got.standard_error("acc"), "acc_norm": 0.5, "acc_norm_stderr": 0.05,
        "acc_norm_tokens": 1.0, "acc_norm_tokens_stderr": 0.0, "items": 101,
    }  # fmt: skip
    assert Accuracies(1.0, 0.0, 1.0, items=1).figures() == {
        "acc": 1.0, "acc_norm": 0.0, "acc_norm_tokens": 1.0, "items": 1
    }  # fmt: skip
