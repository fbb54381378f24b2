"""A run: its folder, and what is in it as objects. `load` opens one; `pretraining.train` makes one.

runs/NAME/
    config.toml      every setting          tokenizer.json  text ⇄ ids
    data.json        which text, as shards  machine.json    where it was made, by which version
    metrics.jsonl    every figure           samples.jsonl   what it wrote as it learned
    origin.json      whose weights it began with, if they were not random
    report.html      all of it as a page    checkpoints/    weights, see training/checkpoint.py
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from glassgpt.data.corpora import Corpus, text_corpus
from glassgpt.data.manifest import Manifest, load_manifest
from glassgpt.data.prepare import DataConfig, open_prepared, prepare
from glassgpt.data.prepared import Prepared, tokenizer_sha256
from glassgpt.errors import UserError, unknown
from glassgpt.evaluation.hellaswag import Accuracies
from glassgpt.evaluation.lm_eval import evaluate_tasks
from glassgpt.evaluation.scoring import Progress
from glassgpt.evaluation.suites import open_suite
from glassgpt.evaluation.validation import Evaluation, bytes_per_token, evaluate
from glassgpt.generation.sampling import SamplingConfig, generate
from glassgpt.interop.origin import ORIGIN, load_origin
from glassgpt.models import build_model, find_architecture
from glassgpt.runconfig import RunConfig, load_config
from glassgpt.runtime import Runtime, build_runtime
from glassgpt.tokenizers import Tokenizer, load_tokenizer
from glassgpt.tokenizers.stream import StreamDecoder
from glassgpt.training.checkpoint import Checkpoint, best_checkpoint, list_checkpoints, load_model_weights
from glassgpt.training.tracking import Record, read_lines

RUNS = Path("runs")
END_OF_TEXT = "<|endoftext|>"


@dataclass
class Run:
    """A trained, or half-trained, model with everything that is needed to use it.

    `config`, `tokenizer` and `model` (the raw module, in eval mode) are the run's own; `checkpoint` says at which step.
    """

    folder: Path
    config: RunConfig
    tokenizer: Tokenizer
    model: nn.Module
    checkpoint: Checkpoint
    runtime: Runtime

    @property
    def step(self) -> int:
        """The optimizer steps that the weights have seen."""
        return self.checkpoint.step

    @property
    def imported(self) -> bool:
        """Whether the run came from elsewhere and has not been trained here: it has no text and no figures."""
        return is_imported(self.folder)

    @cached_property
    def manifest(self) -> Manifest:
        """Which text the run was trained on. Raises UserError for one that was imported."""
        check_trained(self.folder)
        return load_manifest(self.folder / "data.json")

    @property
    def summary(self) -> Record | None:
        """How training ended, as `glassgpt train --json` prints it; None while it has not."""
        final = [record for record in self.metrics if record.get("final")]
        if not final:
            return None
        record = final[-1]
        return {
            "run": str(self.folder),
            "steps": record["step"],
            "tokens_seen": record["tokens_seen"],
            "train_loss": record["train/loss"],
            "val_loss": record["val/loss"],
            "best_val_loss": record["best/val/loss"],
            "seconds": record["seconds"],
        }

    @property
    def metrics(self) -> list[Record]:
        """Every figure of the training, as in metrics.jsonl."""
        return read_lines(self.folder / "metrics.jsonl")

    def generate(
        self,
        prompt: str = "",
        *,
        max_new_tokens: int = 200,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> str:
        """The prompt and what the model writes after it. The same seed writes the same text."""
        config = SamplingConfig(temperature, top_k, top_p)
        return prompt + "".join(self.stream(prompt, config, max_new_tokens=max_new_tokens, seed=seed))

    def stream(
        self, prompt: str, config: SamplingConfig, *, max_new_tokens: int, seed: int | None = None
    ) -> Iterator[str]:
        """Yields the text after the prompt as it is written, whole characters only."""
        if max_new_tokens < 1:
            raise UserError(f"max-new-tokens {max_new_tokens} is out of range: it must be at least 1")
        if seed is not None and not 0 <= seed < 2**32:
            raise UserError(f"seed {seed} is out of range: it must be at least 0 and below 2^32")
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        ids = self.tokenizer.encode(prompt) or start_of_text(self.tokenizer)
        return write(self.model, self.tokenizer, ids, config, self.config.model.block_size, max_new_tokens, generator)

    def evaluate(
        self,
        data: str | None = None,
        *,
        text: str | None = None,
        split: Literal["train", "val"] = "val",
        stride: int | None = None,
    ) -> Evaluation:
        """The loss on a whole split: of the run's own text, of another source as `--data` names it, or of a string.

        A `stride` lets the windows overlap, see `glassgpt.evaluation.validation.evaluate`.
        """
        prepared = self._prepare(data, text_corpus(text) if text is not None else None)
        return evaluate(
            self.model,
            prepared.train if split == "train" else prepared.val,
            bytes_per_token(self.tokenizer),
            self.runtime,
            block_size=self.config.model.block_size,
            stride=stride,
            separator=document_separator(self.config, self.tokenizer),
        )

    def evaluate_suite(
        self, name: str, *, file: str | Path | None = None, limit: int | None = None, progress: Progress | None = None
    ) -> Accuracies:
        """How the model does at a test known by name, "hellaswag"; `file` and `limit` choose its items."""
        suite = open_suite(name, self.tokenizer, file=file, limit=limit)
        return suite.evaluate(self.model, self.runtime, block_size=self.config.model.block_size, progress=progress)

    def evaluate_tasks(
        self,
        tasks: Sequence[str],
        *,
        include_path: str | Path | None = None,
        limit: int | None = None,
        num_fewshot: int | None = None,
    ) -> dict[str, dict[str, Any]]:
        """What EleutherAI's lm-eval reports for its `tasks`, see `glassgpt.evaluation.lm_eval`."""
        return evaluate_tasks(
            self.model, self.tokenizer, tasks, self.runtime,
            block_size=self.config.model.block_size, prefix_id=start_of_text(self.tokenizer)[0],
            include_path=include_path, limit=limit, num_fewshot=num_fewshot,
        )  # fmt: skip

    def _prepare(self, data: str | None, corpus: Corpus | None) -> Prepared:
        if data is None and corpus is None:
            return open_prepared(self.manifest, self.tokenizer)
        config = DataConfig(data or "text", self.config.data.val_fraction)
        return prepare(config, self.tokenizer, corpus=corpus)


def load(run: str | Path, *, checkpoint: str | int = "best", device: str = "auto") -> Run:
    """Opens a run by its name under runs/ or its path. `checkpoint` is "best", "last" or a step.

    Raises UserError, naming the file, for anything missing, damaged or of another version.
    """
    folder = find_run(run)
    config = load_config(folder / "config.toml")
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    if tokenizer_sha256(tokenizer) != _recorded_tokenizer(folder):
        raise UserError(f"{folder / 'tokenizer.json'} is not the tokenizer that the run was trained with: restore it")
    runtime = build_runtime(device, "float32")
    model = build_model(config.architecture, config.model)
    chosen = find_checkpoint(folder, checkpoint)
    load_model_weights(chosen, model)
    model.to(runtime.device).eval()
    return Run(folder, config, tokenizer, model, chosen, runtime)


def _recorded_tokenizer(folder: Path) -> str:
    """The sha256 of the tokenizer that the weights belong to."""
    if is_imported(folder):
        return load_origin(folder / ORIGIN).tokenizer_sha256
    return load_manifest(folder / "data.json").tokenizer.sha256


def is_imported(folder: Path) -> bool:
    """Whether a run folder holds weights from elsewhere that have not been trained here."""
    return (folder / ORIGIN).exists() and not (folder / "data.json").exists()


def check_trained(folder: Path) -> None:
    """Raises UserError for an imported run, where a text or figures of its own are needed."""
    if is_imported(folder):
        raise UserError(
            f"{folder} was imported and not trained here, so it has no text and no figures of its own: evaluate it with"
            f" --data, or fine-tune it with glassgpt train --init-from {folder}"
        )


def find_run(run: str | Path) -> Path:
    """The folder of an existing run: a name under runs/, else a path."""
    with contextlib.suppress(OSError):  # a name too long for the file system is no run
        for folder in (RUNS / run, Path(run)):
            if (folder / "config.toml").is_file():
                return folder
        if str(run) and (Path(run).is_dir() or (RUNS / run).is_dir()):
            raise UserError(f"{run} is not a run folder: it has no config.toml")
    names = [path.parent.name for path in sorted(RUNS.glob("*/config.toml"))]
    if not names:
        raise UserError(f"there is no run '{run}', and none under {RUNS}/ yet: glassgpt train makes one")
    raise unknown("run", str(run), names)


def named_run(run: str | Path) -> str:
    """A run as a config names it: the path of its folder, also where only its name was given."""
    with contextlib.suppress(UserError):  # one that is gone keeps the name it is given
        return str(find_run(run))
    return str(run)


def find_checkpoint(folder: Path, which: str | int) -> Checkpoint:
    """ "best", "last", or a step.

    The best of a run that has ended is that of its last figures, taken over the whole validation split; before, the one
    with the lowest loss so far, and the last where none was evaluated.
    """
    checkpoints = list_checkpoints(folder / "checkpoints")
    if not checkpoints:
        raise UserError(
            f"{folder} has no checkpoint: training was stopped before the first; start it again with --overwrite"
        )
    if which == "last":
        return checkpoints[-1]
    if which == "best":
        ended = [record for record in read_lines(folder / "metrics.jsonl") if record.get("final")]
        found = [checkpoint for checkpoint in checkpoints if ended and checkpoint.step == ended[-1].get("best/step")]
        return next(iter(found), None) or best_checkpoint(checkpoints) or checkpoints[-1]
    steps = [checkpoint.step for checkpoint in checkpoints]
    if not re.fullmatch("[0-9]+", str(which)) or int(which) not in steps:
        raise UserError(f"{folder} has no checkpoint '{which}': it has best, last, {', '.join(map(str, steps))}")
    return checkpoints[steps.index(int(which))]


def document_separator(config: RunConfig, tokenizer: Tokenizer) -> int | None:
    """The id that begins a document, where `data.document_mask` keeps them apart; None where it does not.

    Raises UserError where the model cannot, or the tokenizer has no end-of-text.
    """
    if not config.data.document_mask:
        return None
    if not find_architecture(config.architecture).documents:
        raise UserError(
            f"data.document_mask = true: the architecture '{config.architecture}' cannot keep documents apart"
        )
    if END_OF_TEXT not in tokenizer.special_tokens:
        raise UserError(
            f"data.document_mask = true: the {tokenizer.name} tokenizer has no {END_OF_TEXT} between documents; prepare"
            " the data with one that has it"
        )
    return tokenizer.special_tokens[END_OF_TEXT]


def start_of_text(tokenizer: Tokenizer) -> list[int]:
    """What an empty prompt begins with: end-of-text where the tokenizer has it, else a new line, else id 0."""
    if END_OF_TEXT in tokenizer.special_tokens:
        return [tokenizer.special_tokens[END_OF_TEXT]]
    try:
        return tokenizer.encode("\n") or [0]
    except UserError:
        return [0]


def write(
    model: nn.Module,
    tokenizer: Tokenizer,
    ids: Sequence[int],
    config: SamplingConfig,
    block_size: int,
    max_new_tokens: int,
    generator: torch.Generator,
) -> Iterator[str]:
    """ids to the pieces of text that follow them."""
    decoder = StreamDecoder(tokenizer)
    for id in generate(
        model, ids, config,
        block_size=block_size, vocab_size=tokenizer.vocab_size, max_new_tokens=max_new_tokens, generator=generator,
    ):  # fmt: skip
        if piece := decoder.feed(id):
            yield piece
    if rest := decoder.flush():
        yield rest
