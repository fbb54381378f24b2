"""A trained run as an object: `load` opens a run folder, which `runs.train.train` has created.

runs/NAME/
    config.toml      every setting            tokenizer.json  text ⇄ ids
    data.json        manifest of the shards   machine.json    machine and version of each session
    metrics.jsonl    every figure             samples.jsonl   text generated during training
    origin.json      source of the initial weights, if they were not random
    report.html      a page on all of it      checkpoints/    weights, see training/checkpoint.py
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from glassgpt.config import strict_arguments
from glassgpt.costs.flops import count_parameters
from glassgpt.data.corpora import Corpus, text_corpus
from glassgpt.data.dataset import Dataset, tokenizer_sha256
from glassgpt.data.dataset_cache import DataConfig, build_dataset, reopen_dataset
from glassgpt.data.manifest import Manifest, load_manifest
from glassgpt.data.masking import VALIDATION_SEED, Hider
from glassgpt.data.pair_dataset import build_pairs, encode_source, reopen_pairs
from glassgpt.data.pair_loader import pad_sources
from glassgpt.data.pairs import Ends, check_lengths
from glassgpt.errors import UserError, option, shown
from glassgpt.evaluation.hellaswag import Accuracies
from glassgpt.evaluation.lm_eval import evaluate_tasks
from glassgpt.evaluation.masked import CountingAccuracy, MaskedEvaluation, count_masked, evaluate_masked
from glassgpt.evaluation.ngram import NGramModel
from glassgpt.evaluation.pairs import PairEvaluation, evaluate_pairs, write_targets
from glassgpt.evaluation.scoring import ScoringProgress
from glassgpt.evaluation.suites import open_suite
from glassgpt.evaluation.validation import Counting, Evaluation, bytes_per_token, evaluate
from glassgpt.generation import MAX_NEW_TOKENS, TEMPERATURE
from glassgpt.generation.engine import SLOTS
from glassgpt.generation.packed import pack
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.generation.speculative import check_draft
from glassgpt.generation.text import start_of_text, write_many, write_with_drafts
from glassgpt.generation.translate import GREEDY
from glassgpt.inspection.guesses import encode_for_encoder
from glassgpt.models import AnyModel, EncoderDecoderModel, EncoderModel, Model, find_architecture
from glassgpt.report.figures import describe_model, describe_progress
from glassgpt.report.look import Look
from glassgpt.report.look.pair import PairLook
from glassgpt.report.run_picture import card, draw_run
from glassgpt.report.run_record import read_record
from glassgpt.runs.config import RunConfig, config_sections, document_eot_id, load_config
from glassgpt.runs.folder import check_trained, find_checkpoint, find_run, is_imported
from glassgpt.runs.origin import ORIGIN, load_origin
from glassgpt.runs.stages import find_stage
from glassgpt.runtime.device import Runtime, build_runtime
from glassgpt.runtime.parallel import move, weights_later
from glassgpt.tokenizers import Tokenizer, load_tokenizer
from glassgpt.training.checkpoint import Checkpoint, load_model_weights, open_weights
from glassgpt.training.metrics import Line, final_record, read_lines
from glassgpt.training.stage import ARROW

MOST_COUNTED = 10_000_000  # tokens that counting predicts: their losses are held in memory
STAGE_FIGURES = ("val/accuracy", "val/exact", "val/edit_distance")  # of the stages mlm and seq2seq
BEGINNING = 32  # tokens of a sample that `look` shows: their attention fits a terminal


@dataclass(repr=False)
class Run:
    """A fully or partly trained model with everything that is needed to use it."""

    folder: Path
    config: RunConfig
    tokenizer: Tokenizer
    checkpoint: Checkpoint
    runtime: Runtime

    @property
    def model(self) -> Model:
        """The raw module, in eval mode, with the weights of `checkpoint` in the dtype of `runtime`.

        They are read when it is first used. Raises UserError for an encoder-decoder: see `encoder_decoder`.
        """
        if not isinstance(self.any_model, Model):
            raise UserError(f"{self.folder} holds an encoder-decoder, and this needs a model of one text")
        return self.any_model

    @property
    def encoder_decoder(self) -> EncoderDecoderModel:
        """As `model`, of a run that holds an encoder-decoder. Raises UserError for another kind of model."""
        if not isinstance(self.any_model, EncoderDecoderModel):
            raise UserError(f"{self.folder} holds no encoder-decoder, and this needs a model that reads a source")
        return self.any_model

    @cached_property
    def any_model(self) -> AnyModel:
        """The raw module of any kind, see `model`."""
        model = self._build_model().to(self.runtime.product_dtype)
        move(model, self.runtime.device)
        load_model_weights(self.checkpoint, model)
        return model.eval()

    def stored_model(self) -> AnyModel:
        """The raw module on the CPU, with the weights in the dtypes of the checkpoint: an import may have 16 bits.

        If `model` was changed since it was read, so is this one, rounded to those dtypes.
        """
        model = self._build_model()
        reader = open_weights(self.checkpoint, model)
        read = self.any_model.state_dict() if "any_model" in vars(self) else None
        model.load_state_dict(
            {
                name: reader.read(name) if read is None else read[name].to("cpu", like.dtype)
                for name, like in reader.shapes.items()
            },
            assign=True,
        )
        return model

    def _build_model(self) -> AnyModel:
        with weights_later():
            return find_stage(self.config.run.stage).build_model(self.config)

    @property
    def n_parameters(self) -> int:
        """The number of parameters of the model; the weights are not read for it."""
        return count_parameters(self._build_model())

    def __repr__(self) -> str:
        return f"Run {self.folder}\n" + "\n".join(f"  {line}" for line in self._facts())

    def _repr_html_(self) -> str:
        """What a notebook shows: the same, with the loss curve and samples of a run that was trained here."""
        picture = ""
        with contextlib.suppress(UserError):  # the facts say what is wrong with the folder
            picture = "" if self.imported else draw_run(read_record(self.folder))
        return card(str(self.folder), self._facts(), picture)

    def _facts(self) -> list[str]:
        """A few lines on the run: the model, the weights that are loaded, and its final losses."""
        sizes, tokenizer = config_sections(self.config)["model"], self.tokenizer
        lines = [
            f"{describe_model(sizes)}, {self.n_parameters:,} parameters; {tokenizer.name} tokenizer,"
            f" {tokenizer.vocab_size:,} ids",
            f"weights of step {self.step:,}, on {self.runtime.device}",
        ]
        try:
            trained = "imported, not trained here" if self.imported else describe_progress(read_record(self.folder))
        except UserError as error:  # the folder was changed or removed since
            trained = str(error)
        return [*lines, trained]

    @property
    def step(self) -> int:
        """The number of optimizer steps that led to the weights."""
        return self.checkpoint.step

    @property
    def imported(self) -> bool:
        """Whether the run was imported and not trained here: it then has no text and no figures."""
        return is_imported(self.folder)

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest of the training data. Raises UserError for an imported run."""
        check_trained(self.folder)
        return load_manifest(self.folder / "data.json")

    @property
    def summary(self) -> Line | None:
        """The final figures, as `glassgpt train --json` prints them; None until training has finished.

        A figure that is not in the final record is None. Stages other than pretraining add their own.
        """
        record = final_record(self.metrics)
        if record is None:
            return None
        name = self.checkpoint.best.figure
        return {
            "run": str(self.folder),
            "steps": record["step"],
            "tokens_seen": record.get("tokens_seen"),
            "train_loss": record.get("train/loss"),
            **{f"{prefix}{name}".replace("/", "_"): record.get(f"{prefix}{name}") for prefix in ("", "best/")},
            **{found.replace("/", "_"): record[found] for found in STAGE_FIGURES if found in record},
            "seconds": record.get("seconds"),
        }

    @property
    def metrics(self) -> list[Line]:
        """Every figure of the training, as in metrics.jsonl."""
        return read_lines(self.folder / "metrics.jsonl")

    def check_plain_model(self) -> None:
        """Raises UserError if the stage changed the architecture, as that of a reward model does."""
        found = type(self._build_model())  # the weights do not matter, and may not be read yet
        if found is not find_architecture(self.config.architecture).model:
            raise UserError(
                f"{self.folder} holds a {found.__name__}, trained by the stage '{self.config.run.stage}',"
                " and this needs a language model: name a run of another stage"
            )

    def check_language_model(self) -> None:
        """Raises UserError if the model does not predict the next token: a reward model, or an encoder."""
        kind = find_architecture(self.config.architecture).kind
        if kind != "decoder":
            other = "does not predict what comes next" if kind == "encoder" else "writes a target for a source"
            instead = {
                "encoder": f"to see what it finds, use glassgpt look {self.folder} --show guesses",
                "encoder-decoder": f"to see what it writes, use glassgpt sample {self.folder} --prompt SOURCE",
            }[kind]
            raise UserError(
                f"{self.folder} holds a model of the architecture '{self.config.architecture}', which {other}: it"
                f" continues no text, and has no loss of a text; {instead}"
            )
        self.check_plain_model()

    @strict_arguments
    def generate(
        self,
        prompt: str = "",
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = TEMPERATURE,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> str:
        """Returns the prompt and the text generated after it, with the defaults of `glassgpt sample`.

        The same seed gives the same text.
        """
        config = SamplingConfig(temperature, top_k, top_p)
        return prompt + "".join(self.stream(prompt, config, max_new_tokens=max_new_tokens, seed=seed))

    @strict_arguments
    def stream(
        self,
        prompt: str = "",
        config: SamplingConfig = SamplingConfig(TEMPERATURE),
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Yields the text after the prompt as it is generated, in complete characters."""
        pieces = self.stream_many([prompt], config, max_new_tokens=max_new_tokens, seed=seed)
        return (piece for _, piece in pieces if piece is not None)

    def stream_many(
        self,
        prompts: Sequence[str],
        config: SamplingConfig,
        *,
        max_new_tokens: int,
        seed: int | None = None,
        weights: str | None = None,
        draft: Run | None = None,
    ) -> Iterator[tuple[int, str | None]]:
        """Continues many prompts at once: yields which prompt, counted from 0, and the next piece of its text.

        After the last piece of a text comes None. Each prompt has a seed of its own, the first has `seed` and each next
        one is higher by 1. With `weights`, those of the model are packed, see `glassgpt.generation.packed.pack`. With a
        `draft`, a run of a smaller model with the same tokenizer, one text is written after another, with its drafts:
        see `glassgpt.generation.speculative`.
        """
        self.check_language_model()
        if draft is not None:
            draft.check_language_model()
            if tokenizer_sha256(draft.tokenizer) != tokenizer_sha256(self.tokenizer):
                raise UserError(
                    f"the draft model {draft.folder} has another tokenizer than {self.folder}: its drafts would be"
                    " other text; name a run that was trained with the same tokenizer"
                )
        _check_length(max_new_tokens)
        _check_seed(seed, len(prompts))
        generators = (_seeded(None if seed is None else seed + number) for number in range(len(prompts)))
        encoded = {prompt: self.tokenizer.encode(prompt) or start_of_text(self.tokenizer) for prompt in set(prompts)}
        ids = [encoded[prompt] for prompt in prompts]
        rows = min(len(prompts), SLOTS) if draft is None else SLOTS  # a pass over drafts has several rows
        model = self.model if weights is None else pack(self.model, weights, rows=rows)
        if draft is None:
            return write_many(model, self.tokenizer, ids, config, max_new_tokens, generators)
        check_draft(draft.model, self.model)
        small = draft.model if weights is None else pack(draft.model, weights)
        return write_with_drafts(model, small, self.tokenizer, ids, config, max_new_tokens, generators)

    def write_targets(
        self,
        sources: Sequence[str],
        config: SamplingConfig = GREEDY,
        *,
        max_new_tokens: int | None = None,
        seed: int | None = None,
    ) -> list[str]:
        """What an encoder-decoder writes for each of the sources, greedily by default: at most `max_new_tokens` tokens,
        and never more than the model's block_size.

        The sources go through the model together, so with a `config` that draws, the seed is that of all of them.
        Raises UserError for another kind of model, for a source that is longer than the model's block_size, and for a
        `max_new_tokens` or seed out of range.
        """
        model, ends = self.encoder_decoder, Ends.of(self.tokenizer)
        block_size = model.config.block_size
        if max_new_tokens is not None:
            _check_length(max_new_tokens)
        _check_seed(seed)
        encoded = [self._encode_source(source, ends) for source in sources]
        for source, ids in zip(sources, encoded, strict=True):
            if len(ids) > block_size:
                raise UserError(
                    f"the source {shown(source)} has {len(ids):,} tokens with the one that ends it, and the model reads"
                    f" {block_size:,} at most: give a shorter one"
                )
        written: list[str] = []
        generator = _seeded(seed)
        for start in range(0, len(encoded), SLOTS):
            batch = pad_sources(encoded[start : start + SLOTS], ends, block_size).to(self.runtime.device)
            written += write_targets(
                model, batch, ends, self.tokenizer, self.runtime,
                max_new_tokens=max_new_tokens, config=config, generator=generator,
            )  # fmt: skip
        return written

    def _encode_source(self, source: str, ends: Ends) -> NDArray[np.int64]:
        try:
            return encode_source(self.tokenizer, ends, source)
        except UserError as error:
            raise UserError(f"the source {shown(source)}: {error}") from None

    @strict_arguments
    def evaluate_pairs(self, data: str | None = None, *, split: Literal["train", "val"] = "val") -> PairEvaluation:
        """Writes the targets of a whole split, of the run's own pairs or of another text, and counts the mistakes."""
        model = self.encoder_decoder
        if data is None:
            dataset = reopen_pairs(self.manifest, self.tokenizer)
        else:
            dataset = build_pairs(replace(self.config.data, source=data), self.tokenizer)
        pairs = dataset.train if split == "train" else dataset.val
        check_lengths(pairs, model.config.block_size)
        return evaluate_pairs(model, pairs, self.tokenizer, self.runtime)

    @strict_arguments
    def evaluate_masked(
        self, data: str | None = None, *, text: str | None = None, split: Literal["train", "val"] = "val"
    ) -> tuple[MaskedEvaluation, CountingAccuracy]:
        """Hides tokens of a whole split and counts how many an encoder finds, and how many counting finds.

        Raises UserError for another kind of model, and if both data and text are given.
        """
        if not isinstance(self.any_model, EncoderModel):
            raise UserError(f"{self.folder} holds no encoder, and only an encoder finds hidden tokens")
        if data is not None and text is not None:
            raise UserError("both data and text are given: evaluate on one of them")
        hider = Hider(self.tokenizer, self.config.data.mask_fraction, VALIDATION_SEED)
        dataset = self._prepare(data, text_corpus(text) if text is not None else None)
        tokens = dataset.train if split == "train" else dataset.val
        sizes = self.any_model.config
        return (
            evaluate_masked(self.any_model, tokens, hider, self.runtime),
            count_masked(dataset.train, tokens, hider, sizes.block_size, self.tokenizer.vocab_size),
        )

    @strict_arguments
    def look(self, text: str | None = None) -> Look:
        """A text in the model: `run.look("O Romeo").attention()` shows itself in a terminal and in a notebook.

        Without a text it is the beginning of the last sample that was generated during training, or for an encoder that
        of the validation split. For an encoder, the name of the mask token in the text hides a token:
        `run.look("Where [MASK] thou?").guesses()`. Raises UserError for an empty text, for one that the tokenizer
        cannot encode, and if there is no sample.
        """
        self.check_plain_model()
        if find_architecture(self.config.architecture).kind == "encoder-decoder":
            raise UserError(f"{self.folder} holds an encoder-decoder, which reads a source: use `look_pair`")
        model, block_size = self.model, self.config.model.block_size
        if isinstance(model, EncoderModel):
            ids = encode_for_encoder(self.tokenizer, self._validation_text() if text is None else text)
            ids = ids[:block_size] if text is None else ids
        elif text is not None:
            ids = self.tokenizer.encode(text)
        else:
            ids = self.sample_ids()[: min(BEGINNING, block_size)]
        return Look(model, self.tokenizer, ids, f"{self.folder.resolve().name}, step {self.step:,}")

    @strict_arguments
    def look_pair(self, source: str | None = None, target: str | None = None) -> PairLook:
        """A source and a target in an encoder-decoder: `run.look_pair("romeo").attention()` shows itself.

        Without a target, the model writes it. Without a source, it is that of the last sample of the training. Raises
        UserError for another kind of model, and if there is no sample.
        """
        model = self.encoder_decoder
        if source is None:
            source = self._last_sample().get("prompt", "").removesuffix(ARROW)
        return PairLook(model, self.tokenizer, source, target, f"{self.folder.resolve().name}, step {self.step:,}")

    def sample_ids(self) -> list[int]:
        """The last sample that was generated during training, with its prompt. Raises UserError if there is none.

        The prompt of an encoder's sample is the same text with hidden tokens, so it is left out.
        """
        prompted = find_architecture(self.config.architecture).kind == "decoder"
        written = self.sample_text(with_prompt=prompted)
        return self.tokenizer.encode(written, allowed_special="all")  # it has them by name, mostly at its start

    def sample_text(self, *, with_prompt: bool = False) -> str:
        """What the model wrote in the last sample of its training. Raises UserError if there is no sample."""
        sample = self._last_sample()
        prompt = str(sample.get("prompt") or "") if with_prompt else ""
        return prompt + str(sample.get("text") or "")

    def _validation_text(self) -> str:
        """The beginning of the validation split, or of the last sample where this machine does not have the data.

        What an encoder found in hidden places is no text to ask it about: it would agree with itself.
        """
        with contextlib.suppress(UserError):
            val = reopen_dataset(self.manifest, self.tokenizer).val
            return self.tokenizer.decode(val.slice(0, min(BEGINNING, len(val))).tolist())
        return self.sample_text()[:BEGINNING]

    def _last_sample(self) -> Line:
        samples = read_record(self.folder).samples
        if not samples:
            raise UserError(f"{self.folder} has no sample to look at: give {option(text='…')}")
        return samples[-1]

    @strict_arguments
    def evaluate(
        self,
        data: str | None = None,
        *,
        text: str | None = None,
        split: Literal["train", "val"] = "val",
        stride: int | None = None,
        counting: float | None = None,
    ) -> Evaluation:
        """Computes the loss on a whole split of the run's own text, of another source as in `--data`, or of a string.

        With a `stride`, the windows overlap, see `glassgpt.evaluation.validation.evaluate`. With `counting`, from 0 to
        1, the prediction is a mixture: so much of it is what counting predicts, on the training split of the text that
        is evaluated. Raises UserError for an unknown split, a weight out of range, and if both data and text are given.
        """
        self.check_language_model()
        if data is not None and text is not None:
            raise UserError("both data and text are given: evaluate on one of them")
        if counting is not None and not 0 <= counting <= 1:
            raise UserError(f"the weight of counting is {counting}: it must be from 0 (the model alone) to 1")
        if counting is not None and split == "train":
            raise UserError(
                "counting knows the training split by heart: a mixture is evaluated on the validation split"
            )
        dataset = self._prepare(data, text_corpus(text) if text is not None else None)
        tokens = dataset.train if split == "train" else dataset.val
        counts = None
        if counting is not None:
            if len(tokens) > MOST_COUNTED:
                raise UserError(
                    f"counting predicts {MOST_COUNTED:,} tokens at most, and the validation split has {len(tokens):,}"
                )
            counted = NGramModel.fit(dataset.train, self.tokenizer.vocab_size)
            counts = Counting(counted.losses(tokens.slice(0, len(tokens))), counting)
        return evaluate(
            self.model, tokens, bytes_per_token(self.tokenizer), self.runtime,
            stride=stride, eot_id=document_eot_id(self.config, self.tokenizer), counting=counts,
        )  # fmt: skip

    @strict_arguments
    def evaluate_suite(
        self,
        name: str,
        *,
        file: str | Path | None = None,
        limit: int | None = None,
        progress: ScoringProgress | None = None,
    ) -> Accuracies:
        """Evaluates the model on a test suite by name ("hellaswag"); `file` and `limit` select its items."""
        self.check_language_model()
        suite = open_suite(name, self.tokenizer, file=file, limit=limit)
        return suite.evaluate(self.model, self.runtime, progress=progress)

    @strict_arguments
    def evaluate_tasks(
        self,
        tasks: Sequence[str],
        *,
        include_path: str | Path | None = None,
        limit: int | None = None,
        num_fewshot: int | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Evaluates the model on `tasks` of EleutherAI's lm-eval, see `glassgpt.evaluation.lm_eval`."""
        self.check_language_model()
        return evaluate_tasks(
            self.model, self.tokenizer, tasks, self.runtime,
            prefix_id=start_of_text(self.tokenizer)[0],
            include_path=include_path, limit=limit, num_fewshot=num_fewshot,
        )  # fmt: skip

    def _prepare(self, data: str | None, corpus: Corpus | None) -> Dataset:
        if data is None and corpus is None:
            return reopen_dataset(self.manifest, self.tokenizer)
        config = DataConfig(data or "text", self.config.data.val_fraction)
        return build_dataset(config, self.tokenizer, corpus=corpus)


@strict_arguments
def load(run: str | Path, *, checkpoint: str | int = "best", device: str = "auto", dtype: str = "float32") -> Run:
    """Opens a run by its name under runs/ or its path. `checkpoint` is "best", "last" or a step.

    `dtype` is float32, tf32, bfloat16, float16 or auto, as in `machine.dtype`. In 16 bits the weights are rounded once:
    half the memory, and figures differ from those of float32 in the third digit. What this machine
    lacks is in `runtime.notes`. Raises UserError, naming the file, for anything missing, damaged or of another version.
    """
    opened = open_run(run, checkpoint=checkpoint, device=device, dtype=dtype)
    opened.any_model  # noqa: B018  # reads the weights now, so that damaged ones are reported here
    return opened


def _check_length(max_new_tokens: int) -> None:
    if max_new_tokens < 1:
        raise UserError(f"{option(max_new_tokens=max_new_tokens)} is out of range: it must be at least 1")


def _check_seed(seed: int | None, n_texts: int = 1) -> None:
    """Raises UserError for a seed out of range, where each text after the first has a seed that is 1 higher."""
    if seed is not None and not 0 <= seed <= 2**32 - n_texts:
        last = "" if n_texts == 1 else ", as must be those of the other texts, each 1 higher"
        raise UserError(f"seed {seed} is out of range: it must be at least 0 and below 2^32{last}")


def _seeded(seed: int | None) -> torch.Generator:
    """A generator with this seed, or with a random one."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
        return generator
    return generator.manual_seed(seed)


def open_run(run: str | Path, *, checkpoint: str | int = "best", device: str = "auto", dtype: str = "float32") -> Run:
    """As `load`, but the weights are read when the model is first used."""
    folder = find_run(run)
    config = load_config(folder / "config.toml")
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    if tokenizer_sha256(tokenizer) != _recorded_tokenizer(folder):
        raise UserError(f"{folder / 'tokenizer.json'} is not the tokenizer that the run was trained with: restore it")
    runtime = build_runtime(device, dtype)
    return Run(folder, config, tokenizer, find_checkpoint(folder, checkpoint), runtime)


def _recorded_tokenizer(folder: Path) -> str:
    """The sha256 of the tokenizer that the weights belong to."""
    if is_imported(folder):
        return load_origin(folder / ORIGIN).tokenizer_sha256
    return load_manifest(folder / "data.json").tokenizer.sha256
