"""HellaSwag by three ways on the same strings and weights: our own, our model under lm-eval, lm-eval's own `hf` model.

    python bench/lm_eval_parity.py --items hellaswag_val.jsonl --limit 200

A nearly random two-layer model is made and exported to a `transformers` folder. The first two ways load our run, the
third knows the export only: neither our tokenizers nor our scoring take part in it. Needs `pip install 'lm-eval[hf]'`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import glassgpt as gg
from glassgpt.runs.exporting import export_hf
from glassgpt.runs.listener import Listener

MODEL = {"model.n_layer": 2, "model.n_head": 2, "model.n_embd": 64, "model.block_size": 256}
TRAINING = {"training.batch_tokens": 2048, "evaluation.sample_every": 0, "evaluation.tokens": 2048}
MEASURES = ("acc", "acc_stderr", "acc_norm", "acc_norm_stderr")


def write_task(folder: Path, items: Path) -> None:
    """A task for lm-eval that takes the strings of our file as they are; YAML takes JSON."""
    task = {
        "task": "hellaswag_local", "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"validation": str(items)}}, "validation_split": "validation",
        "output_type": "multiple_choice", "doc_to_text": "{{ctx}}", "doc_to_target": "{{label}}",
        "doc_to_choice": "{{endings}}",
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
        ],
    }  # fmt: skip
    (folder / "hellaswag_local.yaml").write_text(json.dumps(task))


def by_our_adapter(run: gg.Run, tasks: Path) -> dict[str, Any]:
    """What lm-eval finds for our model, handed to it in this process."""
    results = run.evaluate_tasks(["hellaswag_local"], include_path=tasks)["hellaswag_local"]
    return {name: results[f"{name},none"] for name in MEASURES}


def by_lm_eval_alone(export: Path, tasks: Path) -> dict[str, Any]:
    """What lm-eval's own `hf` model finds for an exported folder."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    found = simple_evaluate(
        "hf", {"pretrained": str(export), "dtype": "float32"}, tasks=["hellaswag_local"], device="cpu", batch_size=16,
        task_manager=TaskManager(include_path=str(tasks)), log_samples=False,
    )  # fmt: skip
    results: dict[str, Any] = found["results"]["hellaswag_local"]
    return {name: results[f"{name},none"] for name in MEASURES}


def timed(name: str, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The figures that `find` gives, printed with its seconds."""
    began = time.perf_counter()
    figures = find()
    shown = "  ".join(f"{measure} {figures[measure]:.6f}" for measure in MEASURES)
    print(f"{name:26}  {shown}  {time.perf_counter() - began:6.1f} s", flush=True)
    return {measure: round(figures[measure], 12) for measure in MEASURES}


def main() -> None:
    """Exits with 1 where the three ways differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("GLASSGPT_TEST_DATA", ".")) / "hellaswag_val.jsonl"
    parser.add_argument("--items", type=Path, default=default, help="JSON lines with ctx, endings and label")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20, help="of training, so that not all is chance")
    options = parser.parse_args()
    if importlib.util.find_spec("lm_eval") is None or not options.items.exists():
        sys.exit(print(f"left out: it needs lm-eval and {options.items}", file=sys.stderr))
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
        items = folder / "items.jsonl"
        items.write_text("".join(options.items.read_text().splitlines(keepends=True)[: options.limit]))
        write_task(folder, items)
        text = "\n".join(json.loads(line)["ctx"] for line in options.items.read_text().splitlines())
        settings: dict[str, Any] = {**MODEL, **TRAINING, "tokenizer.name": "bpe", "tokenizer.vocab_size": 2048}
        settings["tokenizer.special_tokens"] = ["<|endoftext|>"]  # lm-eval asks for one
        run = gg.train(
            "char-tiny", text=text, run=folder / "run", max_steps=options.steps, settings=settings, listener=Listener()
        )  # fmt: skip
        assert run is not None  # it is on the ranks of torchrun beside the first
        export = export_hf(run, folder / "export")
        found = [
            timed("eval --suite hellaswag", lambda: run.evaluate_suite("hellaswag", file=items).figures()),
            timed("our model under lm-eval", lambda: by_our_adapter(run, folder)),
            timed("lm-eval's hf on the export", lambda: by_lm_eval_alone(export, folder)),
        ]
    equal = found[0] == found[1] == found[2]
    print("all three equal" if equal else "NOT EQUAL")
    sys.exit(not equal)


if __name__ == "__main__":
    main()
