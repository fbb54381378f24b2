"""`train`: starts a new run on a text, or resumes one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glassgpt.config import strict_arguments
from glassgpt.data.corpora import text_corpus
from glassgpt.errors import ReportedByFirstRank, UserError, is_out_of_memory, option
from glassgpt.evaluation.hellaswag import HellaSwag
from glassgpt.evaluation.suites import open_suite
from glassgpt.files import write_text
from glassgpt.models import AnyModel
from glassgpt.ownership import is_run_folder
from glassgpt.runs.config import EvaluationConfig, RunConfig, dump_config, load_config, parse_run_config
from glassgpt.runs.decision import Changes, Decision, decide_new_run, decide_resumed_run, find_runtime
from glassgpt.runs.folder import (
    RUNS,
    cut_back_to,
    free_folder,
    lock_inside,
    lock_run,
    named_folder,
    named_run,
    new_run_folder,
    record_session,
)
from glassgpt.runs.init_from import FINETUNE, open_initial_run
from glassgpt.runs.listener import Listener
from glassgpt.runs.micro_batch import check_fits
from glassgpt.runs.minutes import RECIPE, SIZES, TimeLimit
from glassgpt.runs.notebook import build_listener
from glassgpt.runs.origin import ORIGIN, Origin
from glassgpt.runs.pace import Pace
from glassgpt.runs.publisher import Publisher
from glassgpt.runs.reporting import report_run
from glassgpt.runs.run import Run, load, open_run
from glassgpt.runs.session import Interrupted, Session
from glassgpt.runs.stages import StageKind, find_stage
from glassgpt.runtime.device import Runtime
from glassgpt.runtime.distributed import Ranks, join_ranks
from glassgpt.runtime.parallel import copy_weight, weights_later
from glassgpt.tokenizers import Tokenizer
from glassgpt.tokenizers.build import build_again
from glassgpt.training.checkpoint import record_score
from glassgpt.training.config_formats import current_settings
from glassgpt.training.fit import Diverged, TrainState

DEFAULT_RECIPE = "modern-tiny"


@strict_arguments
def train(
    recipe: str | None = None,
    *,
    data: str | Path | None = None,
    text: str | None = None,
    init_from: str | Path | None = None,
    run: str | Path | None = None,
    max_steps: int | None = None,
    minutes: float | None = None,
    resume: bool | None = None,
    overwrite: bool = False,
    overfit_batch: bool = False,
    track: Sequence[str] = (),
    overrides: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
    began: float | None = None,
) -> Run | None:
    """Trains a recipe (`modern-tiny` by default) on a text and returns the finished run with its best weights.

    `data` names the text as `--data` does, `text` is the text itself. `overrides` are "section.field=value" strings,
    `settings` the same as values: {"training.seed": 1}. `max_steps` only sets where to stop: the schedule keeps the
    length of the recipe, so that a run stopped early and resumed later equals one that was never stopped.
    `minutes` is the time that the run is to take, from its start to its report. Then the number of steps is chosen and,
    without a recipe, the size of the model too: the one that learns most in that time on this device. If steps turn out
    slower or faster, the run gets shorter or longer; what was changed is recorded, and a resumed run replays it.
    `began` is when the time began by time.monotonic(); None is now.
    `init_from` names a run that provides the initial weights (its best), the sizes and the tokenizer; the default
    recipe is then `finetune`.
    If the folder of `run` exists, a call with the same settings gives that run back if it is finished, and continues it
    from its last checkpoint if it is not, so that a notebook's cell may be executed twice. Other settings are an error,
    except for a larger `max_steps` and those that do not affect the weights. `overwrite` replaces the run,
    `resume=False` refuses an existing one. With `resume=True`, all settings that are not given are those of the run; if
    it does not exist yet, it is started, provided that `recipe`, `data`, `text` or `init_from` is given.

    `track` names trackers that also get config, figures and samples (swanlab, trackio, wandb, tensorboard); a resumed
    run keeps its own by default.

    Progress is shown in the output of a notebook's cell, elsewhere on stderr; pass `Listener()` for silence, or one of
    your own.

    Under torchrun, every rank calls it. The first one decides, prints and writes; on the others it returns None. After
    training with FSDP, the returned run is on the CPU and reads its weights only when its model is used.

    Raises UserError for invalid input, such as an argument of the wrong type, Interrupted after a signal to stop.
    """
    began_at = time.monotonic() if began is None else began
    ranks = join_ranks()
    listener = (listener or build_listener()) if ranks.first else Listener()
    with contextlib.ExitStack() as held, ranks.together():

        def decide() -> dict[str, Any]:
            if resume and run is None:
                raise UserError(f"{option(resume=True)} needs to know which run: name it with {option(run='NAME')}")
            if resume and overwrite:
                raise UserError(
                    f"{option(resume=True)} continues a run and {option(overwrite=True)} replaces it: give one of them"
                )
            if data is not None and text is not None:
                raise UserError("both data and text are given: train on one of them")
            _check_recorded(overrides, settings or {})
            time_limit = None
            if minutes is not None:
                _check_unplanned(max_steps, overfit_batch, overrides, settings or {})
                time_limit = TimeLimit(minutes, began_at, SIZES if recipe is None and init_from is None else None)
            corpus = text_corpus(text) if text is not None else None
            source = corpus.source if corpus else None if data is None else str(data)
            new = recipe or _usual_recipe(minutes, init_from)  # of a new run
            planned = time_limit is not None and time_limit.sizes is not None
            own = "modern" if planned else Path(new).stem
            folder = named_folder(run) if run is not None else _own_folder(own, overfit_batch)
            values = current_settings(settings or {}, listener.note) | (
                {} if source is None else {"data.source": source}
            )
            if init_from is not None:
                values["run.init_from"] = named_run(init_from)
            values |= {"evaluation.track": list(track)} if track else {}
            values |= {"training.minutes": minutes} if minutes is not None else {}
            changes = Changes(overrides, values, max_steps, overfit_batch)
            can_begin = any(given is not None for given in (recipe, source, init_from, minutes))
            if resume and not can_begin and not folder.exists() and is_run_folder(RUNS / folder):
                folder = RUNS / folder  # a name of several parts, such as ladder/s04-head
            held.enter_context(lock_run(folder))
            again = resume is None and not overwrite and is_run_folder(folder)  # the same call as before
            if again or (resume and (folder.exists() or not can_begin)):
                known = new if again and not planned else recipe
                decision = decide_resumed_run(folder, known, changes, corpus=corpus, ranks=ranks, note=listener.note)
                return decision.to_json()
            if resume:
                listener.note(f"there is no run {folder} yet: beginning it")
            decision = decide_new_run(
                folder, new, changes, corpus=corpus, overwrite=overwrite, time_limit=time_limit, ranks=ranks,
                note=listener.note,
            )  # fmt: skip
            return decision.to_json()

        decision = Decision.from_json(ranks.on_first(decide))
        try:
            device = _carry_out(decision, ranks, listener, held)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_describe_stop(Path(decision.folder))) from None
    if not ranks.first:
        return None
    if decision.config["machine"]["parallel"] == "fsdp":  # one device may be too small for the whole model
        return open_run(decision.folder, device="cpu")
    return load(decision.folder, device=device)


def _carry_out(decision: Decision, ranks: Ranks, listener: Listener, held: contextlib.ExitStack) -> str:
    """Trains the run of the decision and writes its report. Returns the device that it ran on.

    `held` has the lock of the run, and gets that in the folder of a new one.
    """
    folder = Path(decision.folder)
    if decision.finished:
        listener.note(
            f"{folder} is finished at step {decision.resumed_from().step};"
            f" a larger {option(max_steps=None)} continues it"
        )
        if ranks.first and not (folder / "report.html").exists():
            report_run(folder)
        return "auto"
    session = build_session(decision, ranks, listener)
    if decision.checkpoint is not None:
        state = _resume_run(session, decision)
    else:
        state = _create_run(session, decision.origin)
        if ranks.first:
            held.enter_context(lock_inside(folder))
    track = session.config.evaluation.track
    if track and ranks.first:
        session.listener = Publisher(listener, track, decision.recorded)
    try:
        session.run(state)
    except Interrupted as stopped:
        ranks.on_first(lambda: _report_if_possible(folder, listener))
        listener.note(str(stopped))
        raise
    except Diverged as stopped:  # raised on every rank
        ranks.on_first(lambda: _report_if_possible(folder, listener))
        if not ranks.first:
            raise ReportedByFirstRank(str(stopped)) from None
        raise
    if ranks.first:
        try:
            report_run(folder)
        except UserError as error:
            raise UserError(
                f"training is complete and saved; only report.html could not be written ({error}): mend that, then"
                f" glassgpt report {folder}"
            ) from None
    return str(session.runtime.device)


def _describe_stop(folder: Path) -> str:
    """What Ctrl-C before the first step, or a second Ctrl-C, has left of the run."""
    if not is_run_folder(folder):
        return "stopped before the first step: nothing was saved"
    return f"stopped at once: {folder} has its last checkpoint, go on with {option(resume=True)}"


def _report_if_possible(folder: Path, listener: Listener) -> None:
    """Writes the report of a run that was stopped; if it cannot, says so, since why the run stopped matters more."""
    try:
        report_run(folder)
    except UserError as error:
        listener.note(f"no report: {error}")


def build_session(decision: Decision, ranks: Ranks, listener: Listener) -> Session:
    """Builds the same session on every rank: runtime, data, model, stage."""
    config = parse_run_config(decision.config)
    kind = find_stage(config.run.stage)
    runtime = ranks.on_all(lambda: find_runtime(config, ranks))
    tokenizer = build_again(decision.tokenizer)
    # The first rank of a node may have to make the shards, or to download a suite, for the others. All of them wait
    # through the store, which has no time limit: the process group begins afterwards.
    data = ranks.on_all(lambda: kind.open_data(decision.data, tokenizer), first_of_node_first=True)
    suites = ranks.on_all(lambda: _open_suites(config.evaluation, tokenizer), first_of_node_first=True)

    # The weights of a resumed run come from its checkpoint, see `_resume_run`.
    begins, init_from = decision.checkpoint is None, config.run.init_from
    draws = begins and init_from is None and runtime.parallel != "fsdp"
    model = ranks.on_all(lambda: _build_model(kind, config, runtime, draws))
    ranks.connect(runtime.device, compiling=runtime.compile)
    stage = ranks.on_all(lambda: kind.build(config, model, data, runtime))
    with _model_memory_advice(runtime):
        pace = None if decision.pace is None else Pace(**decision.pace)
        session = Session(Path(decision.folder), config, stage, suites, runtime, listener, pace)
        if begins and not draws:
            _begin_with(lambda: _initial_weights(kind, config, runtime), model, ranks)
    return session


def _build_model(kind: StageKind, config: RunConfig, runtime: Runtime, draws: bool) -> AnyModel:
    """The model, with random weights if `draws`, else without weights. Raises UserError if it cannot fit."""
    with _model_memory_advice(runtime):
        check_fits(lambda: kind.build_model(config), runtime)
        if draws:
            return _draw_model(kind, config)
        with weights_later():
            return kind.build_model(config)


def _draw_model(kind: StageKind, config: RunConfig) -> AnyModel:
    torch.manual_seed(config.training.seed)
    return kind.build_model(config)


Weights = Callable[[str], Tensor]  # from a name to the whole tensor, on the CPU


def _initial_weights(kind: StageKind, config: RunConfig, runtime: Runtime) -> Weights:
    """Those of the run `run.init_from`, or random ones: the same as one rank would draw for its whole model."""
    if config.run.init_from is not None:
        return open_initial_run(config.run.init_from).weights(config.model)
    with _model_memory_advice(runtime):
        return _draw_model(kind, config).state_dict().__getitem__


def _begin_with(weights: Callable[[], Weights], model: AnyModel, ranks: Ranks) -> None:
    """Gives the model of every rank its part of the weights that the first rank has, one tensor at a time."""
    opened: list[Weights] = []
    ranks.on_first(lambda: opened.append(weights()))
    for name, target in model.state_dict().items():
        tensor = opened[0](name) if ranks.first else torch.empty(target.shape, dtype=target.dtype)
        copy_weight(tensor, target, ranks)


def _open_suites(evaluation: EvaluationConfig, tokenizer: Tokenizer) -> dict[str, HellaSwag]:
    file, limit = evaluation.suite_file, evaluation.suite_limit
    return {name: open_suite(name, tokenizer, file=file, limit=limit) for name in evaluation.suites}


@contextlib.contextmanager
def _model_memory_advice(runtime: Runtime) -> Iterator[None]:
    """Converts torch's out-of-memory error for the weights into a UserError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"the model does not fit into the memory of {runtime.device}: lower model.n_embd, model.n_layer or"
            " model.vocab_size"
        ) from None


def _create_run(session: Session, origin: dict[str, Any] | None) -> TrainState:
    """Writes the folder of a new run with its step-0 checkpoint, replacing that of an old run."""
    stage, ranks = session.stage, session.runtime.ranks
    with contextlib.ExitStack() as held:

        def begin() -> str:
            folder, config, runtime = session.folder, session.config, session.runtime
            new = held.enter_context(new_run_folder(folder, config, stage.tokenizer, runtime, session.n_parameters))
            stage.save_data(new)
            if origin is not None:
                Origin(**origin).save(new / ORIGIN)
            return str(new)

        session.save_first(Path(ranks.on_first(begin)) / "checkpoints")
        ranks.on_first(held.close)  # the folder gets its name
    return TrainState()


def _resume_run(session: Session, decision: Decision) -> TrainState:
    """Loads the checkpoint, then removes later steps from the folder."""
    folder, config, checkpoint = session.folder, session.config, decision.resumed_from()
    state = session.restore(checkpoint)

    def go_back() -> None:
        every = load_config(folder / "config.toml").validation_interval
        # Remove a score that was measured only because a shorter run ended at this step.
        if checkpoint.score is not None and (not every or checkpoint.step % every):
            record_score(checkpoint, None)
        cut_back_to(folder, checkpoint.step)
        write_text(folder / "config.toml", dump_config(config))
        record_session(folder, session.runtime, checkpoint.step, decision.changed)

    session.runtime.ranks.on_first(go_back)
    session.listener.note(f"resuming {folder} after step {checkpoint.step}")
    return state


def _named(overrides: Sequence[str], settings: Mapping[str, Any]) -> set[str]:
    """The "section.field" of everything that a user sets."""
    return {text.partition("=")[0].strip() for text in overrides} | settings.keys()


def _check_recorded(overrides: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Raises UserError for settings that only record what a planned run did."""
    for name in sorted(_named(overrides, settings) & {"training.minutes", "schedule.replanned"}):
        raise UserError(f"{name} only records what {option(minutes=None)} did: give a run its time with that")


def _check_unplanned(
    max_steps: int | None, overfit_batch: bool, overrides: Sequence[str], settings: Mapping[str, Any]
) -> None:
    """Raises UserError for arguments that choose what `minutes` chooses."""
    named = _named(overrides, settings)
    given: list[str] = [name for name in ("training.max_steps", "schedule.decay_steps") if name in named]
    given += [option(max_steps=None)] if max_steps is not None else []
    given += [option(overfit_batch=True)] if overfit_batch else []
    if given:
        raise UserError(f"{option(minutes=None)} chooses the number of steps, and so does {given[0]}: give one of them")


def _usual_recipe(minutes: float | None, init_from: str | Path | None) -> str:
    """The recipe of a new run for which none is named."""
    if init_from is not None:
        return FINETUNE
    return DEFAULT_RECIPE if minutes is None else RECIPE


def _own_folder(name: str, overfit_batch: bool) -> Path:
    """The default folder of a run without a name."""
    return free_folder(name + ("-overfit" if overfit_batch else ""))
