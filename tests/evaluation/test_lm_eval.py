"""Our model under lm-eval itself, on tasks of local files: with the extra [eval], else these tests are skipped."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from glassgpt.errors import UserError
from glassgpt.evaluation.hellaswag import HellaSwag, load_items
from glassgpt.evaluation.lm_eval import evaluate_tasks
from glassgpt.evaluation.scoring import encode_pair, score
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.runtime.device import Runtime
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.printable import BYTE_ORDER

pytest.importorskip("lm_eval", reason="needs lm-eval: pip install 'glassgpt[eval]'")

from lm_eval.api.instance import Instance

from glassgpt.evaluation.lm_eval.adapter import GlassGPT

pytestmark = [pytest.mark.extras, pytest.mark.slow]  # lm-eval alone takes ten seconds to import and to list its tasks

CPU = Runtime(torch.device("cpu"), "float32")
BLOCK = 24
VERBS = ["sits", "runs home", "eats an apple", "is not there, or is he", "goes", "stays where he was before"]
ITEMS: list[dict[str, Any]] = [
    {
        "ctx": f"A man {VERBS[i % 6]} and{' ' * (i % 3 == 0)}",
        "endings": [f"{VERBS[(i * j + j) % 6]}{'!' * (i % 4)} é{j}" for j in range(1, 5)],
        "label": i * 7 % 4,
    }
    for i in range(40)
]
TASKS: dict[str, dict[str, Any]] = {
    "swag_local": {
        "output_type": "multiple_choice", "doc_to_text": "{{ctx}}", "doc_to_target": "{{label}}",
        "doc_to_choice": "{{endings}}",
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
        ],
    },
    "lambada_local": {
        "output_type": "loglikelihood", "doc_to_text": "{{ctx.strip()}}", "doc_to_target": " {{endings[label]}}",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        ],
    },
    "rolling_local": {
        "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{ctx}} {{endings|join(' ')}}",
        "metric_list": [{"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}],
    },
    "writing_local": {
        "output_type": "generate_until", "doc_to_text": "{{ctx}}", "doc_to_target": "{{endings[label]}}",
        "generation_kwargs": {"until": ["e", "."], "max_gen_toks": 6},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of task files, each on the same forty items; YAML takes JSON as it is."""
    folder = tmp_path_factory.mktemp("tasks")
    items = folder / "items.jsonl"
    items.write_text("".join(json.dumps(item) + "\n" for item in ITEMS), encoding="utf-8")
    for name, fields in TASKS.items():
        data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(items)}}, "test_split": "test"}
        (folder / f"{name}.yaml").write_text(json.dumps({"task": name, **data, **fields}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    text = " ".join(item["ctx"] + " ".join(item["endings"]) for item in ITEMS)
    return BPETokenizer.train(text, 300, ("<|endoftext|>",))


@pytest.fixture(scope="module")
def model(tokenizer: BPETokenizer) -> GPT2:
    torch.manual_seed(0)
    model = GPT2(GPT2Config(tokenizer.vocab_size, BLOCK, n_layer=2, n_head=2, n_embd=16))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def results(tasks: Path, tokenizer: BPETokenizer, model: GPT2, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        return evaluate_tasks(
            model, tokenizer, list(TASKS), CPU, prefix_id=tokenizer.special_tokens["<|endoftext|>"],
            include_path=tasks,
        )  # fmt: skip


def text_logprob(model: GPT2, tokenizer: BPETokenizer, context: str, continuation: str) -> tuple[float, bool]:
    """In float64, one pass for the whole text, its start cut away where it is too long."""
    n = len(tokenizer.encode(context + continuation)) - len(tokenizer.encode(context))
    ids = tokenizer.encode(context + continuation)[-(BLOCK + 1) :]
    with torch.no_grad():
        logprobs = copy.deepcopy(model).double()(torch.tensor([ids[:-1]]))[0].log_softmax(dim=-1)
    targets = torch.tensor(ids[1:])
    nats = logprobs.gather(1, targets[:, None])[-n:].sum().item()
    return nats, bool((logprobs.argmax(dim=-1) == targets)[-n:].all())


def test_hellaswag_equals_our_own(results: Any, tasks: Path, model: GPT2, tokenizer: BPETokenizer) -> None:
    ours = HellaSwag(load_items(tasks / "items.jsonl"), tokenizer).evaluate(model, CPU)
    theirs = results["swag_local"]
    assert (theirs["acc,none"], theirs["acc_norm,none"]) == (ours.acc, ours.acc_norm)
    assert theirs["acc_stderr,none"] == pytest.approx(ours.standard_error("acc"))
    assert theirs["acc_norm_stderr,none"] == pytest.approx(ours.standard_error("acc_norm"))


def test_a_task_like_lambada(results: Any, model: GPT2, tokenizer: BPETokenizer) -> None:
    found = [
        text_logprob(model, tokenizer, item["ctx"].strip(), f" {item['endings'][item['label']]}") for item in ITEMS
    ]
    perplexity = math.exp(-sum(nats for nats, _ in found) / len(found))
    assert results["lambada_local"]["perplexity,none"] == pytest.approx(perplexity, rel=1e-5)
    assert results["lambada_local"]["acc,none"] == sum(greedy for _, greedy in found) / len(found)


def test_whole_texts_in_windows(results: Any, model: GPT2, tokenizer: BPETokenizer) -> None:
    """lm-eval's windows follow each other; the last one is moved back until it is whole, and counts what is new."""
    nats, n_bytes, exact = 0.0, 0, copy.deepcopy(model).double()
    for item in ITEMS:
        text = f"{item['ctx']} {' '.join(item['endings'])}"
        ids = [tokenizer.special_tokens["<|endoftext|>"], *tokenizer.encode(text)]
        done = 1
        while done < len(ids):
            end = min(done + BLOCK, len(ids))
            start = max(0, end - 1 - BLOCK)
            with torch.no_grad():
                logprobs = exact(torch.tensor([ids[start : end - 1]]))[0].log_softmax(dim=-1)
            nats += sum(logprobs[at - start - 1, ids[at]].item() for at in range(done, end))
            done = end
        n_bytes += len(text.encode())
    assert results["rolling_local"]["bits_per_byte,none"] == pytest.approx(-nats / n_bytes / math.log(2), rel=1e-5)


def test_writing_ran(results: Any) -> None:
    assert 0 <= results["writing_local"]["exact_match,none"] <= 1


@pytest.fixture(scope="module")
def with_bos() -> BPETokenizer:
    """As Llama 3's, which begins a text with another token than the one that ends it."""
    specials = {"<|endoftext|>": 256, "<s>": 257}
    return BPETokenizer(dict(enumerate(BYTE_ORDER)), [], specials, bos_token="<s>")


def test_a_context_begins_with_bos(tasks: Path, with_bos: BPETokenizer) -> None:
    torch.manual_seed(0)
    model = GPT2(GPT2Config(with_bos.vocab_size, 64, n_layer=2, n_head=2, n_embd=16)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    expected = score(model, [encode_pair(with_bos, "A man", " sits")], CPU).logprobs[0]
    adapter = GlassGPT(model, with_bos, CPU, prefix_id=257)
    ((nats, _),) = adapter.loglikelihood([Instance("loglikelihood", {}, ("A man", " sits"), 0)])
    assert nats == expected


@pytest.mark.parametrize("end", [256, 257])
def test_a_generated_text_ends_where_the_model_ends_it(
    end: int, with_bos: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[list[int]] = []

    def generate(model: object, prompt: list[int], *_: object, **__: object) -> Iterator[int]:
        prompts.append(prompt)
        yield from (ord("a"), end, ord("b"))

    monkeypatch.setattr("glassgpt.evaluation.lm_eval.adapter.generate", generate)
    model = GPT2(GPT2Config(with_bos.vocab_size, 64, n_layer=1, n_head=1, n_embd=8))
    adapter = GlassGPT(model, with_bos, CPU, prefix_id=257)
    request = Instance("generate_until", {}, ("xy", {"until": ["."], "max_gen_toks": 6}), 0)
    assert adapter.generate_until([request]) == [with_bos.decode([ord("a")])]
    assert prompts == [[257, *with_bos.encode("xy")]]


def test_unknown_task_and_folder(tasks: Path, model: GPT2, tokenizer: BPETokenizer) -> None:
    with pytest.raises(UserError, match="unknown task 'swag_lokal': did you mean 'swag_local'"):
        evaluate_tasks(model, tokenizer, ["swag_lokal"], CPU, prefix_id=0, include_path=tasks)
    with pytest.raises(UserError, match="the task folder 'nowhere' does not exist"):
        evaluate_tasks(model, tokenizer, ["swag_local"], CPU, prefix_id=0, include_path="nowhere")


@pytest.mark.parametrize("change", [{"doc_to_text": "{{cty}}"}, {"output_type": "guess"}, {"test_split": "none"}])
def test_a_task_that_makes_no_sense(change: dict[str, Any], tasks: Path, model: GPT2, tokenizer: BPETokenizer) -> None:
    wrong = json.loads((tasks / "swag_local.yaml").read_text()) | {"task": "wrong_local"} | change
    (tasks / "wrong_local.yaml").write_text(json.dumps(wrong))
    with pytest.raises(UserError, match="lm-eval could not run wrong_local: "):
        evaluate_tasks(model, tokenizer, ["wrong_local"], CPU, prefix_id=0, include_path=tasks)


def test_a_data_set_that_cannot_be_had(model: GPT2, tokenizer: BPETokenizer) -> None:
    with pytest.raises(UserError, match="lm-eval could not run hellaswag: "):
        evaluate_tasks(model, tokenizer, ["hellaswag"], CPU, prefix_id=0)
