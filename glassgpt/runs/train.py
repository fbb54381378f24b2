"""text → run folder: `train` begins a run, or goes on with one."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from glassgpt.data.corpora import Corpus, text_corpus
from glassgpt.data.dataset import Dataset, sha256_of, tokenizer_of
from glassgpt.data.dataset_cache import open_prepared, prepare
from glassgpt.data.manifest import load_manifest
from glassgpt.data.sharing import share_data
from glassgpt.errors import UserError
from glassgpt.files import write_text
from glassgpt.report.run_page import write_report
from glassgpt.runs.config import (
    RunConfig,
    Sections,
    apply_overrides,
    check_ranks,
    check_resumable,
    config_sections,
    dump_config,
    load_config,
    load_recipe,
    parse_run_config,
    set_field,
    with_dtype,
    with_vocab_size,
)
from glassgpt.runs.console import PlainListener
from glassgpt.runs.folder import (
    alone,
    check_free,
    check_trained,
    cut_back_to,
    find_last,
    find_run,
    free_folder,
    has_ended,
    named_folder,
    named_run,
    new_run_folder,
    record_session,
)
from glassgpt.runs.init_from import FINETUNE, InitialRun, inherit, open_initial_run
from glassgpt.runs.listener import Listener
from glassgpt.runs.micro_batch import with_micro_batch
from glassgpt.runs.origin import ORIGIN
from glassgpt.runs.publisher import Publisher, last_recorded_step
from glassgpt.runs.run import Run, load
from glassgpt.runs.session import Interrupted, Session
from glassgpt.runtime.device import Runtime, build_runtime
from glassgpt.runtime.distributed import Ranks, join_ranks
from glassgpt.tokenizers import TokenizerConfig, load_tokenizer
from glassgpt.training.checkpoint import record_val_loss
from glassgpt.training.fit import Diverged, TrainState
from glassgpt.training.trackers import check_installed

DEFAULT_RECIPE = "char-tiny"

# What --overfit-batch changes in a recipe: one batch, nothing that holds the model back from learning it by heart.
OVERFIT: Sections = {
    "model": {"dropout": 0.0},
    "optimizer": {"weight_decay": 0.0},
    "schedule": {"name": "constant", "warmup_steps": 10},
    "training": {
        "overfit_batch": True, "max_steps": 1000, "eval_every": 0, "sample_every": 0, "checkpoint_every": 0,
        "snapshots": 0,
    },
}  # fmt: skip


def train(
    recipe: str | None = None,
    *,
    data: str | None = None,
    text: str | None = None,
    init_from: str | Path | None = None,
    run: str | Path | None = None,
    max_steps: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    overfit_batch: bool = False,
    track: Sequence[str] = (),
    overrides: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
) -> Run:
    """Trains a recipe (`char-tiny` by default) on a text and returns the finished run, its best weights loaded.

    `data` names the text as `--data` does, `text` is the text itself. `overrides` are "section.field=value" strings,
    `settings` the same as values: {"training.seed": 1}. `max_steps` only says where to stop: the schedule keeps the
    length of the recipe, so that a run stopped early and resumed later equals one that was never stopped.
    `init_from` names a run to begin with: its best weights, its sizes and its tokenizer; the recipe is then `finetune`
    by default.
    With `resume` the run goes on from its last checkpoint; with a recipe or a text named it is begun if need be.

    `track` names trackers to which config, figures and samples go as well (swanlab, trackio, wandb, tensorboard); a
    resumed run goes on with those that it has.

    Progress is written to stderr; pass `Listener()` for silence, or your own.

    Under torchrun every rank calls it. The first one decides, prints, writes and returns; for the others the program
    ends here, by SystemExit, when the run does.

    Raises UserError for anything wrong in the input, Interrupted after SIGINT or SIGTERM.
    """
    ranks = join_ranks()
    listener = (listener or PlainListener()) if ranks.first else Listener()
    with ranks.together():
        if resume and run is None:
            raise UserError("--resume needs to know which run: name it with --run NAME")
        if resume and overwrite:
            raise UserError("--resume goes on with a run and --overwrite replaces it: give one of them")
        if data is not None and text is not None:
            raise UserError("both data and text are given: train on one of them")
        corpus = text_corpus(text) if text is not None else None
        source = corpus.source if corpus else data
        new = recipe or (DEFAULT_RECIPE if init_from is None else FINETUNE)  # of a run that is to begin
        folder = ranks.on_first(lambda: named_folder(run) if run is not None else _own_folder(new, overfit_batch))
        values = dict(settings or {}) | ({} if source is None else {"data.source": source})
        if init_from is not None:
            values["training.init_from"] = named_run(init_from)
        values |= {"training.track": list(track)} if track else {}
        changes = Changes(overfit_batch, overrides, values, max_steps)
        can_begin = recipe is not None or source is not None or init_from is not None

        def start() -> tuple[Session | None, TrainState]:
            if resume and ranks.on_first(lambda: folder.exists() or not can_begin):
                return _resume(folder, recipe, changes, corpus, ranks, listener)
            if resume:
                listener.note(f"there is no run {folder} yet: beginning it")
            return _begin(folder, new, changes, corpus, overwrite, ranks, listener)

        sent = ranks.on_first(lambda: last_recorded_step(folder) if resume else 0)
        device = _work(folder, start, sent, ranks, listener)
    if not ranks.first:
        raise SystemExit(0)
    return load(folder, device=device)


def _work(
    folder: Path, start: Callable[[], tuple[Session | None, TrainState]], sent: int, ranks: Ranks, listener: Listener
) -> str:
    """Trains the session that `start` gives, to its report. Returns the device that it ran on.

    Trackers have the figures up to step `sent`.
    """
    with contextlib.ExitStack() as held:
        ranks.on_first(lambda: held.enter_context(alone(folder)))
        session, state = start()
        if session is None:
            if ranks.first and not (folder / "report.html").exists():
                write_report(folder)
            return "auto"
        if session.config.training.track and ranks.first:
            session.listener = Publisher(listener, session.config.training.track, sent)
        try:
            session.run(state)
        except (Interrupted, Diverged) as stopped:
            ranks.on_first(lambda: write_report(folder))
            if isinstance(stopped, Interrupted):
                listener.note(str(stopped))
            raise
        if ranks.first:
            write_report(folder)
        return str(session.runtime.device)


@dataclasses.dataclass(frozen=True)
class Changes:
    """What a user changes in a recipe, in the order in which it is applied."""

    overfit_batch: bool
    overrides: Sequence[str]
    values: Mapping[str, Any]
    max_steps: int | None

    def apply(
        self, sections: Sections, n_ids: int | None = None, note: Callable[[str], None] = lambda line: None
    ) -> RunConfig:
        """The checked config of `sections` with the changes made.

        Once the tokenizer is known, `n_ids` is how many ids it has: that decides `model.vocab_size`.
        """
        if self.overfit_batch:
            sections = {
                name: sections.get(name, {}) | OVERFIT.get(name, {}) for name in sections.keys() | OVERFIT.keys()
            }
        sections = apply_overrides(sections, self.overrides)
        for path, value in self.values.items():
            section, _, field = path.partition(".")
            set_field(sections, section, field, value)
        if n_ids is not None:
            sections, line = with_vocab_size(sections, n_ids)
            if line:
                note(line)
        config = parse_run_config(sections)
        own = tokenizer_of(config.data.source)
        if own and not config.training.init_from and not self._names_tokenizer():
            config = dataclasses.replace(config, tokenizer=TokenizerConfig(str(own)))
        if self.max_steps is None:
            return config
        return dataclasses.replace(config, training=dataclasses.replace(config.training, max_steps=self.max_steps))

    def _names_tokenizer(self) -> bool:
        """Whether the user, not only the recipe, says which tokenizer: then that of a prepared folder must be it."""
        return any(path.startswith("tokenizer.") for path in (*self.overrides, *self.values))


def _begin(
    folder: Path,
    recipe: str,
    changes: Changes,
    corpus: Corpus | None,
    overwrite: bool,
    ranks: Ranks,
    listener: Listener,
) -> tuple[Session, TrainState]:
    """A new run: everything is checked and prepared before the folder, or an old run's, is touched."""
    start: InitialRun | None = None  # on the first rank, which reads it for all

    def plan() -> tuple[Sections, RunConfig]:
        nonlocal start
        check_free(folder, overwrite)
        sections = load_recipe(recipe)
        start = _open_start(recipe, changes)
        if start is not None:
            sections = start.sections(sections)
        config = changes.apply(sections)
        if start is not None:
            start.check(config)
        elif config.training.init_from:
            raise UserError("training.init_from says what --init-from RUN did: give that")
        check_ranks(config, ranks)
        return sections, config

    sections, config = ranks.on_first(plan)
    runtime = _build_runtime(config, ranks, listener)
    prepared = share_data(ranks, lambda: prepare(config.data, config.tokenizer, corpus=corpus))
    listener.note(prepared.note)
    n_ids = prepared.tokenizer.vocab_size
    config = with_dtype(ranks.on_first(lambda: changes.apply(sections, n_ids, listener.note)), runtime.precision)
    if config.model.vocab_size < n_ids:
        raise UserError(
            f"model.vocab_size = {config.model.vocab_size} is too small: the tokenizer has {n_ids} ids; leave it out,"
            " and it is the tokenizer's"
        )
    config = ranks.on_first(lambda: with_micro_batch(config, runtime, listener.note))
    weights = start.weights(config.model) if start is not None else None
    session = Session(folder, config, prepared, runtime, listener, weights)
    _create_folder(session, start)
    return session, TrainState()


def _resume(
    folder: Path, recipe: str | None, changes: Changes, corpus: Corpus | None, ranks: Ranks, listener: Listener
) -> tuple[Session | None, TrainState]:
    """The run in `folder`, from its last whole checkpoint; no session where it has already ended."""
    folder = ranks.on_first(lambda: find_run(folder))
    config = ranks.on_first(lambda: _config_of_resumed(folder, recipe, changes, ranks))
    runtime = _build_runtime(config, ranks, listener)

    last = ranks.on_first(lambda: find_last(folder, config.training.max_steps))
    if ranks.on_first(lambda: has_ended(folder)) and (
        last.step == config.training.max_steps or config.training.overfit_batch
    ):
        listener.note(f"{folder} is finished at step {last.step}; a larger --max-steps would go on")
        return None, TrainState()

    def open_data() -> Dataset:
        manifest = load_manifest(folder / "data.json")
        if corpus is not None and sha256_of(corpus.text) != manifest.text_sha256:
            raise UserError(
                f"the text given is not the one that {folder} is trained on: leave it out, or start a new run"
            )
        return open_prepared(manifest, load_tokenizer(folder / "tokenizer.json"))

    session = Session(folder, config, share_data(ranks, open_data), runtime, listener)
    state = session.restore(last)

    def go_back() -> None:
        every = load_config(folder / "config.toml").training.eval_every
        if last.val_loss is not None and (not every or last.step % every):  # measured at a shorter run's end alone
            record_val_loss(last, None)
        cut_back_to(folder, last.step)
        write_text(folder / "config.toml", dump_config(config))
        record_session(folder, runtime, last.step)

    ranks.on_first(go_back)
    listener.note(f"resuming {folder} after step {last.step}")
    return session, state


def _config_of_resumed(folder: Path, recipe: str | None, changes: Changes, ranks: Ranks) -> RunConfig:
    """The run's own config with the changes made, which must be such that it stays the same run."""
    check_trained(folder)
    stored = load_config(folder / "config.toml")
    sections = config_sections(stored) if recipe is None else load_recipe(recipe)
    if stored.training.init_from:
        sections = inherit(sections, stored)
    # What a recipe leaves open was decided when the run began.
    decided = (("model", "vocab_size"), ("data", "source"), ("schedule", "decay_steps"), ("training", "init_from"))
    for section, field in decided:
        sections.setdefault(section, {}).setdefault(field, getattr(getattr(stored, section), field))
    training = sections.setdefault("training", {})
    if training.get("dtype", "auto") == "auto":
        training["dtype"] = stored.training.dtype
    if ranks.store is None:  # how the ranks shared the work says nothing about one process
        training["parallel"] = "auto"
    config = changes.apply(sections, stored.model.vocab_size)
    if config.training.micro_batch == "auto":
        same = dataclasses.replace(config.training, micro_batch=stored.training.micro_batch)
        config = dataclasses.replace(config, training=same)
    check_resumable(stored, config)
    check_ranks(config, ranks)
    return config


def _open_start(recipe: str, changes: Changes) -> InitialRun | None:
    """The run to begin with, if any."""
    if init_from := changes.values.get("training.init_from"):
        return open_initial_run(init_from)
    if recipe == FINETUNE:
        raise UserError("the recipe finetune goes on with the weights of another run: name it with --init-from RUN")
    return None


def _build_runtime(config: RunConfig, ranks: Ranks, listener: Listener) -> Runtime:
    training = config.training
    for tracker in training.track:
        check_installed(tracker)
    runtime = build_runtime(
        training.device, training.dtype, training.compile,
        ranks=ranks, parallel=training.parallel, activation_checkpointing=training.activation_checkpointing,
    )  # fmt: skip
    for line in runtime.notes:
        listener.note(line)
    ranks.connect(runtime.device, compiling=runtime.compile)
    return runtime


def _own_folder(recipe: str, overfit_batch: bool) -> Path:
    """Where a run without a name goes."""
    return free_folder(Path(recipe).stem + ("-overfit" if overfit_batch else ""))


def _create_folder(session: Session, start: InitialRun | None) -> None:
    """The folder with its step-0 checkpoint, in place of an old run's."""
    ranks = session.runtime.ranks

    with contextlib.ExitStack() as new:

        def begin() -> Path:
            folder = new.enter_context(
                new_run_folder(session.folder, session.config, session.tokenizer, session.runtime, session.n_parameters)
            )
            session.prepared.manifest.save(folder / "data.json")
            if start is not None:
                start.origin().save(folder / ORIGIN)
            return folder

        session.save_first(ranks.on_first(begin))
        ranks.on_first(new.close)
