"""Imports a model that `transformers` saved as a run folder: `import_hf`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from glassgpt.config import strict_arguments
from glassgpt.costs.flops import count_parameters
from glassgpt.data.dataset import tokenizer_sha256
from glassgpt.data.dataset_cache import DataConfig
from glassgpt.data.pairs import Ends
from glassgpt.errors import UserError, option
from glassgpt.files import read_json, user_path
from glassgpt.interop.hub import download_model, model_files
from glassgpt.interop.huggingface import open_hf
from glassgpt.interop.layouts import layout_of
from glassgpt.interop.tokenizer_import import load_hf_tokenizer
from glassgpt.models import AnyModel, EncoderDecoderModel
from glassgpt.runs.config import EvaluationConfig, RunConfig, RunKindConfig, TrainingConfig
from glassgpt.runs.folder import check_free, lock_run, named_folder, new_run_folder
from glassgpt.runs.origin import ORIGIN, Origin, sha256_of_file
from glassgpt.runs.run import Run, open_run
from glassgpt.runtime.device import MachineConfig, build_runtime
from glassgpt.tokenizers import Tokenizer, TokenizerConfig
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.training.checkpoint import write_weights
from glassgpt.training.checkpoint_manager import CheckpointConfig
from glassgpt.training.config_formats import NO_STAGE
from glassgpt.training.optimizers import OptimizerConfig
from glassgpt.training.schedules import ScheduleConfig

NO_DATA = "none"  # the data.source of an imported run
# The state of a checkpoint before the first training step.
UNTRAINED: dict[str, Any] = {
    "step": 0,
    "tokens_seen": 0,
    "skipped_in_row": 0,
    "seconds": 0.0,
    "score": None,
    "scaler": {},
}


@strict_arguments
def import_hf(source: str | Path, *, run: str | Path, revision: str | None = None, overwrite: bool = False) -> Run:
    """Creates a run with the weights and tokenizer of a model that `transformers` saved, ready to use and fine-tune.

    `source` is a folder, or a repository on the Hugging Face hub (gpt2, distilgpt2, owner/name), whose branch, tag or
    commit is `revision`. Everything is checked before the run's folder is touched. The weights keep the dtype that they
    have in the files, and those of one file of the run, at most 5 GB, are in memory at a time.
    Raises UserError, naming the cause, if the model is not exactly one of ours or its tokenizer is not supported.
    """
    folder = named_folder(run)
    check_free(folder, overwrite)
    found, commit = _find_source(source, revision)
    model, weights = open_hf(found)
    tokenizer = load_hf_tokenizer(found)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"{found}: the tokenizer has {tokenizer.vocab_size} ids, the model {model.config.vocab_size}:"
            " they do not belong together"
        )
    if isinstance(model, EncoderDecoderModel):
        _check_start(found / "config.json", Ends.of(tokenizer))
    files = {path.name: sha256_of_file(path) for path in model_files(found)}
    config, runtime = _describe(model, tokenizer), build_runtime("cpu", "float32")
    with lock_run(folder):
        check_free(folder, overwrite)  # again: only now can no other process create it
        with new_run_folder(folder, config, tokenizer, runtime, count_parameters(model)) as new:
            Origin(str(source), commit, files, tokenizer_sha256(tokenizer)).save(new / ORIGIN)
            write_weights(new / "checkpoints", weights, UNTRAINED)
    return open_run(folder)


def _check_start(path: Path, ends: Ends) -> None:
    """Raises UserError if targets start with another token than ours do: the model would not know their first one."""
    fields = read_json(path)
    start = fields.get("decoder_start_token_id", fields.get("pad_token_id"))
    if start is not None and start != ends.start_id:
        raise UserError(
            f"{path}: targets start with the token {start} (decoder_start_token_id), and by the tokenizer with"
            f" {ends.start_id}: they do not belong together"
        )


def _find_source(source: str | Path, revision: str | None) -> tuple[Path, str]:
    """The folder to read, and its commit if it comes from the hub, else an empty string."""
    path = user_path(source)
    if path.is_dir():
        if revision is not None:
            raise UserError(f"{source} is a local folder, which has no revisions: leave {option(revision=None)} out")
        return path, ""
    if path.exists():
        raise UserError(f"{source} is a file: give the folder that it is in")
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", str(source)):
        raise UserError(f"there is no folder {source}")
    downloaded = download_model(str(source), revision)
    return downloaded, downloaded.name


def _describe(model: AnyModel, tokenizer: Tokenizer) -> RunConfig:
    """The config of an imported model. Fields that only training uses have their defaults."""
    return RunConfig(
        run=RunKindConfig(NO_STAGE),
        architecture=layout_of(model).architecture,
        model=model.config,
        data=DataConfig(NO_DATA),
        tokenizer=_describe_tokenizer(tokenizer),
        optimizer=OptimizerConfig(),
        schedule=ScheduleConfig(),
        training=TrainingConfig(batch_tokens=model.config.block_size),
        machine=MachineConfig(),
        evaluation=EvaluationConfig(),
        checkpoint=CheckpointConfig(),
    )


def _describe_tokenizer(tokenizer: Tokenizer) -> TokenizerConfig:
    specials = tuple(tokenizer.special_tokens)
    if isinstance(tokenizer, BPETokenizer):
        pattern: Any = tokenizer.pattern  # one of the names that a BPETokenizer accepts
        return TokenizerConfig("bpe", tokenizer.vocab_size, pattern, specials)
    if tokenizer.name == "char":
        return TokenizerConfig("char", special_tokens=specials)
    return TokenizerConfig(tokenizer.name)
