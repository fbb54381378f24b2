"""`glassgpt bench`: measures training tricks, the speedrun, generation and a training step on this device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glassgpt.cli.output import AsJson, Column, format_table, note, path_option, print_json, say, table_width
from glassgpt.errors import UserError, counted

if TYPE_CHECKING:
    from glassgpt.models import Model
    from glassgpt.planning.generation_speed import GenerationSpeed, SpeedRow
    from glassgpt.tricks import Results
    from glassgpt.tricks.measure import Measured, TrickRow
    from glassgpt.tricks.speedrun import Speedrun
    from glassgpt.tricks.step_speed import StepRow, StepSpeed

app = typer.Typer(no_args_is_help=True, help="Measure training and generation on this device.")


@app.command()
def tricks(
    recipe: Annotated[str, typer.Argument(help="Recipe name (glassgpt recipes) or TOML file.")] = "gpt2-mini",
    data: Annotated[str | None, typer.Option(help="Training text; by default, the recipe's.")] = None,
    rows: Annotated[int | None, typer.Option(help="Rows per batch; by default, the recipe's, at most 16.")] = None,
    steps: Annotated[int, typer.Option(help="Training steps per measurement.")] = 20,
    rounds: Annotated[int, typer.Option(help="Measurements per trick, interleaved.")] = 3,
    only: Annotated[
        list[str] | None, typer.Option(metavar="TRICK", help="Measure this trick alone; repeatable. Default: all.")
    ] = None,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or mps.")] = "auto",
    out: Annotated[Path, path_option("File for the picture (SVG).")] = Path("tricks.svg"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that glassgpt did not write.")] = False,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a recipe field; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure each trick on and off: tokens per second, peak memory, loss, and why it helped or did not."""
    from glassgpt.files import write_text
    from glassgpt.ownership import check_output
    from glassgpt.report.bars_picture import Bar, draw_bars
    from glassgpt.tricks import explanation, measure_tricks
    from glassgpt.tricks.recipe import plain_setup
    from glassgpt.tricks.variants import choose_tricks

    chosen = choose_tricks(only or [])
    check_output(out, overwrite)  # before minutes of measuring
    setup, dataset = plain_setup(recipe, data, set or [], rows, device, note=note)
    note(dataset.note)
    results = measure_tricks(setup, dataset, steps=steps, rounds=rounds, tricks=chosen, progress=note)
    bars = [
        Bar(row.trick.name, row.speed, row.memory, row.missing, row.faster(results.noise) or row.slower(results.noise))
        for row in results.rows
    ]
    write_text(out, draw_bars(bars, f"{Path(recipe).stem}: what each trick gives on {results.device}", results.noise))
    if as_json:
        rows_json = [{**row.to_dict(results.noise), "explanation": explanation(row, results)} for row in results.rows]
        fields = {"recipe": recipe, "device": results.device, "parameters": results.n_params, "noise": results.noise}
        print_json({**fields, "picture": str(out), "tricks": rows_json})
    else:
        print_table(results)
        say(f"noise    {results.noise:.1%}: two measurements of the same step differ by up to so much")
        say(f"picture  {out}")


def print_table(results: Results) -> None:
    """Prints a row per trick with both measurements and their ratio, then the explanations."""
    from glassgpt.tricks import explanation

    def column(title: str, cell: Callable[[TrickRow, Measured, Measured], str]) -> Column:
        pairs = [(row, row.without, row.with_it) for row in results.rows]
        cells = ["" if old is None or new is None else cell(row, old, new) for row, old, new in pairs]
        return Column(title, cells, right=True)

    tokens = f"{results.setup.rows} x {results.setup.model.block_size} tokens a step"
    say(f"{results.n_params:,} parameters, {tokens}; {results.device}")
    columns = [
        Column("trick", [row.trick.name for row in results.rows]),
        column("speed", lambda row, old, new: f"{row.speed:.2f} x"),
        column("tokens/s", lambda row, old, new: f"{old.tokens_per_second:,.0f} → {new.tokens_per_second:,.0f}"),
        column("peak MiB", lambda row, old, new: f"{old.peak_memory / 2**20:,.0f} → {new.peak_memory / 2**20:,.0f}"),
        column("loss", lambda row, old, new: f"{old.loss:.4f} → {new.loss:.4f}"),
        column("first step", lambda row, old, new: f"{new.first_step:.1f} s"),
    ]
    for line in format_table(columns, table_width(), needed=2):
        typer.echo(line)
    for row in results.rows:
        say(f"\n{row.trick.name} ({row.trick.idea}). {explanation(row, results)}")


@app.command()
def speedrun(
    data: Annotated[str, typer.Option(help="Training text; the target is known for Tiny Shakespeare.")] = "shakespeare",
    nanogpt: Annotated[Path | None, path_option("Checkout of karpathy/nanoGPT, which takes part.")] = None,
    fast: Annotated[str, typer.Option(metavar="RECIPE", help="Recipe that is to reach the target.")] = "speedrun",
    far: Annotated[str, typer.Option(metavar="RECIPE", help="Recipe that gets char-tiny's time.")] = "modern-tiny",
    rounds: Annotated[int, typer.Option(help="Rounds, each with a seed of its own.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the first round; the next ones follow.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time whole training runs, in turn: how soon char-tiny's loss is reached, and what its time is enough for."""
    from glassgpt.tricks.speedrun import measure_speedrun

    if not 1 <= rounds <= 100:
        raise UserError(f"--rounds {rounds} is out of range: it must be from 1 to 100")
    if seed < 0:
        raise UserError(f"--seed {seed} is out of range: it must be at least 0")
    found = measure_speedrun(data, range(seed, seed + rounds), fast=fast, far=far, nanogpt=nanogpt, note=note)
    if as_json:
        print_json(found.figures())
    else:
        print_speedrun(found, fast, far)


def print_speedrun(found: Speedrun, fast: str, far: str) -> None:
    """Prints a row per contender with its time and its loss, then what follows."""
    from glassgpt.tricks.speedrun import CONTROL, COUNTING

    names = {"control": CONTROL, "nanogpt": "nanoGPT", "fast": fast, "far": far, "open": f"{far} + counting"}
    shown = [name for name in names if getattr(found.rounds[0], name) is not None]
    losses = {name: [getattr(one, name).val_loss for one in found.rounds] for name in shown}
    columns = [
        Column("contender", [names[name] for name in shown]),
        Column("steps", [f"{found.median(name, 'steps'):,.0f}" for name in shown], right=True),
        Column("seconds", [f"{found.median(name, 'seconds'):.1f}" for name in shown], right=True),
        Column("loss", [f"{found.median(name, 'val_loss'):.4f}" for name in shown], right=True),
        Column("from", [f"{min(losses[name]):.4f}" for name in shown], right=True),
        Column("to", [f"{max(losses[name]):.4f}" for name in shown], right=True),
    ]
    for line in format_table(columns, table_width(), needed=2):
        typer.echo(line)
    every = len(found.rounds)
    say("\nMedians of whole processes; losses in nats per token on the whole validation split.")
    say(f"{fast} reached the target of {found.target:.4f} in {found.reached} of {counted(every, 'round')}.")
    if found.reached == every:
        peers = [("control", CONTROL)] + [("nanogpt", "nanoGPT")] * ("nanogpt" in shown)
        for contender, name in peers:
            say(f"It took 1/{1 / found.ratio(contender):.1f} of the time of {name}.")
    say(f"{far} with counting (weight {COUNTING}) stayed within the time of {CONTROL} in {found.in_time} of {every}.")


@app.command()
def generate(
    run: Annotated[str | None, typer.Argument(help="Run name under runs/, or path.")] = None,
    random: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="Measure a model of this recipe with random weights.")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Texts at once; repeatable. Default: 1 and 16.")] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="float32, float16, bfloat16, int8 or loaded; repeatable. Default: all that this processor has."
        ),
    ] = None,
    new_tokens: Annotated[int, typer.Option(help="Tokens to generate per text.")] = 32,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of each prompt.")] = 1,
    rounds: Annotated[int, typer.Option(help="Measurements of each contender, in turn.")] = 3,
    peer: Annotated[bool, typer.Option(help="Measure transformers beside it, if it is installed.")] = True,
    nanogpt: Annotated[Path | None, path_option("Checkout of karpathy/nanoGPT, which takes part: GPT-2.")] = None,
    llama_cpp: Annotated[
        bool, typer.Option("--llama-cpp", help="Measure llama.cpp beside it: GPT-2 on a CPU, needs xllamacpp and gguf.")
    ] = False,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or mps.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure generation: tokens per second, beside transformers and the rate at which memory is read."""
    from glassgpt.planning.generation_speed import measure_generation

    if (run is None) == (random is None):
        raise UserError("name a run to measure, or a recipe with --random, and not both")
    model = load_model(run, device) if run is not None else random_model(str(random), device)
    speed = measure_generation(
        model, batches=batch or (1, 16), weights=weights or (), new_tokens=new_tokens, prompt_tokens=prompt_tokens,
        rounds=rounds, peer=peer, nanogpt=nanogpt, llama_cpp=llama_cpp,
    )  # fmt: skip
    for line in speed.notes:
        note(line)
    if as_json:
        print_json(speed.to_dict())
    else:
        print_speed(speed)


def load_model(run: str, device: str) -> Model:
    """The model of a run, with the weights of its best checkpoint."""
    from glassgpt.runs.run import load

    opened = load(run, device=device)
    opened.check_language_model()
    return opened.model


def random_model(recipe: str, device: str) -> Model:
    """A model of a recipe's size, with weights as at the start of training."""
    from glassgpt.models import build_model
    from glassgpt.planning.plan import planned_config
    from glassgpt.runtime.device import build_runtime

    config, _ = planned_config(recipe)
    return build_model(config.architecture, config.model).to(build_runtime(device, "float32").device).eval()


def print_speed(speed: GenerationSpeed) -> None:
    """Prints a row for each batch and kind of weights."""

    def column(title: str, cell: Callable[[SpeedRow], str]) -> Column:
        return Column(title, [cell(row) for row in speed.rows], right=True)

    def ratio(value: float | None) -> str:
        return "" if value is None else f"{value:.2f} x"

    peers = [
        column("to transformers", lambda row: ratio(row.ratio_to_transformers)),
        column("to nanoGPT", lambda row: ratio(row.ratio_to_nanogpt)),
        column("to llama.cpp", lambda row: ratio(row.ratio_to_llama_cpp)),
    ]
    columns = [
        column("batch", lambda row: str(row.batch)),
        Column("weights", [row.weights for row in speed.rows]),
        column("tokens/s", lambda row: f"{row.tokens_per_second:,.1f}"),
        column("of the roof", lambda row: f"{row.share_of_roof:.0%}"),
        *(peer for peer in peers if any(peer.cells)),
        column("weights MB", lambda row: f"{row.weight_bytes / 1e6:,.0f}"),
        column("rounds", lambda row: f"{min(row.rounds):,.1f} to {max(row.rounds):,.1f}"),
    ]
    for line in format_table(columns, table_width(), needed=4):
        typer.echo(line)
    low, median, high = (rate / 1e9 for rate in (min(speed.read_rates), speed.read_rate, max(speed.read_rates)))
    say(f"memory is read at {median:.1f} GB/s ({low:.1f} to {high:.1f}); the roof is batch x rate / bytes of weights")


@app.command()
def step(
    recipe: Annotated[str, typer.Argument(help="Recipe name (glassgpt recipes) or TOML file.")] = "gpt2-124m",
    rows: Annotated[int, typer.Option(help="Rows of a micro-batch.")] = 2,
    passes: Annotated[int, typer.Option(help="Micro-batches of a step.")] = 1,
    steps: Annotated[int, typer.Option(help="Training steps of each contender in a round.")] = 3,
    rounds: Annotated[int, typer.Option(help="Rounds, after one that warms up.")] = 3,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="Precision of our step; repeatable. Default: all that this device is fast in."),
    ] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Compile all models with torch.compile.")] = False,
    peer: Annotated[bool, typer.Option(help="Measure transformers beside it, if it is installed.")] = True,
    nanogpt: Annotated[Path | None, path_option("Checkout of karpathy/nanoGPT, which takes part.")] = None,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or mps.")] = "auto",
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a recipe field; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a training step, beside transformers, nanoGPT and the rate of matrix products."""
    from glassgpt.planning.plan import planned_config
    from glassgpt.tricks.step_speed import measure_step

    config, _ = planned_config(recipe, set or [])
    speed = measure_step(
        config.architecture, config.model, config.optimizer, rows=rows, passes=passes, steps=steps, rounds=rounds,
        device=device, precisions=dtype or (), compile=compile, peer=peer, nanogpt=nanogpt,
    )  # fmt: skip
    for line in speed.notes:
        note(line)
    if as_json:
        print_json(speed.to_dict())
    else:
        print_steps(speed)


def print_steps(speed: StepSpeed) -> None:
    """Prints a row for each contender, then how many times as long the peers take."""

    def column(title: str, cell: Callable[[StepRow], str]) -> Column:
        return Column(title, [cell(row) for row in speed.rows], right=True)

    tokens = f"{speed.passes} x {speed.batch_rows} x {speed.block_size} tokens a step"
    say(f"{speed.parameters:,} parameters, {tokens}; {speed.machine['device']}")
    columns = [
        Column("contender", [row.contender for row in speed.rows]),
        Column("dtype", [row.precision for row in speed.rows]),
        column("tokens/s", lambda row: f"{row.tokens_per_second:,.0f}"),
        column("ms a step", lambda row: f"{row.seconds * 1e3:,.1f}"),
        column("of products", lambda row: f"{row.share_of_matrix_rate:.0%}"),
        column("loss", lambda row: f"{row.loss:.4f}"),
        column("rounds, ms", lambda row: f"{min(row.rounds) * 1e3:,.0f} to {max(row.rounds) * 1e3:,.0f}"),
    ]
    for line in format_table(columns, table_width(), needed=5):
        typer.echo(line)
    for precision, rate in speed.matrix_rates.items():
        say(f"matrix products in {precision}: {rate / 1e9:,.0f} GFLOPs per second")
    for name, times in (("transformers", speed.times_transformers), ("nanoGPT", speed.times_nanogpt)):
        if times is not None:
            say(f"{name} takes {times:.2f} times as long")
