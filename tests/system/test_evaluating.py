"""A finished run is put to more than its validation split: overlapping windows, suites, lm-eval."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from command_line import figures, glassgpt, settings

import glassgpt as gg
from glassgpt.cli import lm_eval
from glassgpt.data.dataset_cache import dataset_at_hand
from glassgpt.evaluation.ngram import NGramModel

ITEM = {"ctx": "The cat sat on a", "endings": ["mat", "dogs ran", "sleep and eat", "home"], "label": 0}


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(ITEM | {"label": i % 4}) + "\n" for i in range(8)), encoding="utf-8")
    return path


def test_a_stride_is_said_with_its_figures(trained: Path) -> None:
    plain = json.loads(glassgpt("eval", trained, "--json").out)
    sliding = json.loads(glassgpt("eval", trained, "--stride", 8, "--json").out)
    assert sliding.pop("stride") == 8
    assert sliding.keys() == plain.keys()
    assert sliding["tokens"] == plain["tokens"]
    assert sliding["val_loss"] < plain["val_loss"]  # nearly every target has more to go by
    assert "in windows 8 tokens apart" in glassgpt("eval", trained, "--stride", 8).out
    assert "stride 32 is out of range" in glassgpt("eval", trained, "--stride", 32).error


def test_a_mixture_with_counting(trained: Path) -> None:
    plain = json.loads(glassgpt("eval", trained, "--json").out)
    counted = json.loads((trained / "counting.json").read_text())["ngram"]
    found = {}
    for weight in (0, 0.5, 1):
        found[weight] = json.loads(glassgpt("eval", trained, "--counting", weight, "--json").out)
        assert found[weight].pop("counting") == weight
    assert found[0] == pytest.approx(plain)
    assert found[1]["val_loss"] == pytest.approx(counted)
    assert found[0.5]["val_loss"] < math.log(2) + min(plain["val_loss"], counted)  # half of the better one at least
    run = gg.load(trained)
    dataset = dataset_at_hand(run.manifest, run.tokenizer)
    assert dataset is not None
    tokens = torch.from_numpy(dataset.val.slice(0, len(dataset.val)).astype(np.int64))
    counts = NGramModel.fit(dataset.train, run.tokenizer.vocab_size).losses(dataset.val)
    total, width = 0.0, run.config.model.block_size
    for start in range(0, len(tokens) - 1, width):  # by hand, window by window
        window = tokens[start : start + width + 1]
        logprobs = run.model(window[None, :-1])[0].log_softmax(-1)
        p = logprobs.gather(1, window[1:, None])[:, 0].exp().double().detach().numpy()
        total -= np.log(0.5 * p + 0.5 * np.exp(-counts[start : start + len(p)])).sum()
    assert found[0.5]["val_loss"] == pytest.approx(total / (len(tokens) - 1), rel=1e-5)
    assert "0.7 of the model, 0.3 of what counting predicts" in glassgpt("eval", trained, "--counting", 0.3).out
    assert "the weight of counting is 1.5" in glassgpt("eval", trained, "--counting", 1.5).error
    assert "knows the training split by heart" in glassgpt("eval", trained, "--counting", 0.5, "--split", "train").error


def test_the_loss_is_named_by_its_split(trained: Path) -> None:
    figures = json.loads(glassgpt("eval", trained, "--split", "train", "--json").out)
    assert list(figures) == ["train_loss", "perplexity", "bits_per_byte", "tokens"]


def test_a_suite(trained: Path, items: Path) -> None:
    result = glassgpt("eval", trained, "--suite", "hellaswag", "--file", items, "--json")
    figures = json.loads(result.out)
    assert figures["suite"] == "hellaswag"
    assert figures["items"] == 8
    assert figures["acc"] == figures["acc_norm"] == 0.25  # one item with every label in turn
    assert "hellaswag: 32 of 32 rows" in result.err
    table = glassgpt("eval", trained, "--suite", "hellaswag", "--file", items, "--limit", 4).out
    assert "4 items of hellaswag" in table
    assert "acc_norm         0.2500 ± 0.2500  GPT-2 124M: 0.3114 (lm-eval)" in table


def test_suites_while_training(text_file: Path, items: Path, tmp_path: Path) -> None:
    run, alone = tmp_path / "run", tmp_path / "alone"
    common = ("train", "char-tiny", "--data", text_file, *settings())
    suites = settings(
        evaluation__suites='["hellaswag"]', evaluation__suite_file=items, evaluation__suite_limit=6,
        evaluation__suite_every=15,
    )  # fmt: skip
    result = glassgpt(*common, *suites, "--run", run)
    assert result.code == 0, result.err
    assert "step 15: hellaswag, 6 items: acc 0." in result.err
    lines = figures(run)
    suite = [line for line in lines if "hellaswag/acc" in line]
    assert [line["step"] for line in suite] == [0, 15, 30, 40]
    assert [line.get("at_end", False) for line in suite] == [False, False, False, True]
    assert all(line["hellaswag/items"] == 6 and "hellaswag/acc_norm_stderr" in line for line in suite)
    last = json.loads(glassgpt("eval", run, "--suite", "hellaswag", "--file", items, "--limit", 6, "--json",
                               "--checkpoint", "last").out)  # fmt: skip
    assert {name.removeprefix("hellaswag/"): value for name, value in suite[-1].items() if "/" in name} == {
        name: value for name, value in last.items() if name != "suite"
    }
    assert glassgpt(*common, "--run", alone).code == 0
    assert [line for line in lines if line not in suite] == figures(alone)


def test_suites_that_cannot_be_opened_are_known_before_anything_begins(text_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    common = ("train", "char-tiny", "--data", text_file, "--run", run)
    assert "unknown suite 'mmlu'" in glassgpt(*common, *settings(evaluation__suites='["mmlu"]')).error
    missing = settings(evaluation__suites='["hellaswag"]', evaluation__suite_file="nowhere.jsonl")
    assert "cannot read the HellaSwag file nowhere.jsonl" in glassgpt(*common, *missing).error
    assert not run.exists()


def test_options_that_do_not_go_together(trained: Path, items: Path) -> None:
    assert "name it with --suite" in glassgpt("eval", trained, "--limit", 3).error
    suite = ("eval", trained, "--suite", "hellaswag", "--file", items)
    for more in (["--data", "x"], ["--split", "train"], ["--stride", 3], ["--counting", 0.5]):
        assert "--suite has its own text" in glassgpt(*suite, *more).error
    assert "unknown suite 'mmlu'" in glassgpt("eval", trained, "--suite", "mmlu").error


def test_a_bad_line_and_a_letter_that_the_run_does_not_know(trained: Path, items: Path) -> None:
    items.write_text(json.dumps(ITEM) + "\n{}\n", encoding="utf-8")
    suite = ("eval", trained, "--suite", "hellaswag", "--file", items)
    assert f"{items}, line 2 is not a HellaSwag item: it has no ctx" in glassgpt(*suite).error
    items.write_text(json.dumps(ITEM | {"ctx": "漢"}), encoding="utf-8")
    assert "漢" in glassgpt(*suite).error


def test_lm_eval_without_lm_eval(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["x", "--run", str(trained), "--tasks", "hellaswag"]
    with (
        mock.patch.dict(sys.modules, {"lm_eval": None}),
        mock.patch.object(sys, "argv", arguments),
        pytest.raises(SystemExit) as ended,
    ):
        lm_eval.main()
    assert ended.value.code == 2
    assert "pip install 'glassgpt[eval]'" in capsys.readouterr().err
