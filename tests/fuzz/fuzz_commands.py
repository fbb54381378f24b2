"""The commands of the cases: those that read each file, and every verb with odd values for every one of its options."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, get_args, get_origin

import typer
from fuzz_world import ODD_NAMES, SET

from glassgpt.cli.main import app
from glassgpt.models import ARCHITECTURES
from glassgpt.runs.config import SECTIONS

RUN_FILES = "runs/tiny/"
STEPS = ("--max-steps", "5")
NEW = ("train", "--run", "new", "--max-steps", "1", *SET)

# By the beginning of a file's path: the commands that read it.
READERS: dict[str, tuple[tuple[str, ...], ...]] = {
    RUN_FILES: (
        ("sample", "tiny", "--max-new-tokens", "3"),
        ("eval", "tiny"),
        ("eval", "tiny", "--data", "text.txt", "--stride", "4"),
        ("train", "--run", "tiny", "--resume", *STEPS),
        ("report", "tiny"),
        ("report", "tiny", "sharded"),
        ("report", "--since", "2020-01-01"),
        ("runs",),
        ("runs", "--json", "--sort", "val_loss"),
        ("note", "tiny", "more"),
        ("doctor", "tiny"),
        ("export", "tiny", "--out", "new"),
        ("tokenizer", "encode", "The cat", "--tokenizer", "runs/tiny"),
        (*NEW, "--data", "text.txt", "--init-from", "tiny"),
        ("data", "info", "runs/tiny"),
        ("data", "verify", "runs/tiny"),
    ),
    "runs/encoder/": (
        ("eval", "encoder"),
        ("train", "--run", "encoder", "--resume", *STEPS),
        ("report", "encoder"),
        ("look", "encoder", "--text", "The cat", "--show", "guesses"),
        ("train", "bert-tiny", "--run", "new", "--max-steps", "1", "--data", "text.txt", "--init-from", "encoder"),
    ),
    "runs/pairs/": (
        ("sample", "pairs", "--prompt", "cat"),
        ("eval", "pairs"),
        ("eval", "pairs", "--data", "text.txt"),
        ("train", "--run", "pairs", "--resume", *STEPS),
        ("report", "pairs"),
        ("look", "pairs", "--text", "cat"),
        ("train", "reverse-tiny", "--run", "new", "--max-steps", "1", "--data", "text.txt", "--init-from", "pairs"),
    ),
    "cache/": (
        ("eval", "tiny"),
        ("eval", "encoder"),
        ("eval", "pairs"),
        ("train", "--run", "pairs", "--resume", *STEPS),
        ("data", "list"),
        ("data", "verify"),
        (*NEW, "--data", "text.txt"),
        ("train", "--run", "tiny", "--resume", *STEPS),
    ),
    "shards/": (
        ("data", "info", "shards"),
        ("data", "verify", "shards"),
        (*NEW, "--data", "shards"),
        ("train", "--run", "sharded", "--resume", *STEPS),
        ("eval", "sharded"),
        ("data", "prepare", "texts", "--out", "shards", "--tokenizer", "bpe.json", "--shard-tokens", "500"),
        ("tokenizer", "info", "--tokenizer", "shards"),
    ),
    "hf/": (("import", "hf", "--run", "new"),),
    "hf-old/": (("import", "hf-old", "--run", "new"),),
    "bpe.json": (
        ("tokenizer", "info", "--tokenizer", "bpe.json"),
        ("tokenizer", "encode", "The cat", "--tokenizer", "bpe.json"),
        (*NEW, "--data", "text.txt", "--set", "tokenizer.name=bpe.json"),
    ),
    "suite.jsonl": (("eval", "tiny", "--suite", "hellaswag", "--file", "suite.jsonl"),),
    "documents.jsonl": (("data", "prepare", "documents.jsonl", "--out", "new", "--tokenizer", "bpe.json"),),
    "recipe.toml": (
        ("plan", "recipe.toml", "--no-measure"),
        ("train", "recipe.toml", "--run", "new", "--max-steps", "1", "--set", "machine.device=cpu"),
        ("doctor", "recipe.toml"),
    ),
}

# A short use of every verb, to which odd values are added. A new verb has to be added here.
USES: dict[str, tuple[str, ...]] = {
    "train": (*NEW, "--data", "text.txt"),
    "doctor": ("doctor", "tiny"),
    "ladder": ("ladder", "--data", "text.txt", "--steps", "1", "--seeds", "1", "--section", "1", "--out", "new"),
    "sample": ("sample", "tiny", "--max-new-tokens", "3"),
    "eval": ("eval", "tiny"),
    "report": ("report", "tiny"),
    "look": ("look", "tiny", "--text", "The cat", "--show", "loss"),
    "runs": ("runs",),
    "note": ("note", "tiny", "text"),
    "import": ("import", "hf", "--run", "new"),
    "export": ("export", "tiny", "--out", "new"),
    "plan": ("plan", "recipe.toml", "--no-measure"),
    "recipes": ("recipes",),
    "course": ("course", "4", "--no-browser"),
    "bench tricks": ("bench", "tricks", "recipe.toml", "--steps", "4", "--rounds", "1", "--out", "new.svg"),
    "bench speedrun": ("bench", "speedrun", "--data", "text.txt", "--nanogpt", "texts"),
    "bench generate": ("bench", "generate", "tiny", "--new-tokens", "2", "--prompt-tokens", "2", "--rounds", "1"),
    "bench step": ("bench", "step", "recipe.toml", "--steps", "1", "--rounds", "1", "--rows", "2"),
    "data list": ("data", "list"),
    "data prepare": ("data", "prepare", "texts", "--out", "new", "--tokenizer", "bpe.json"),
    "data info": ("data", "info", "shards"),
    "data verify": ("data", "verify", "shards"),
    "tokenizer train": ("tokenizer", "train", "--data", "text.txt", "--out", "new.json", "--vocab-size", "260"),
    "tokenizer encode": ("tokenizer", "encode", "The cat", "--tokenizer", "bpe.json"),
    "tokenizer decode": ("tokenizer", "decode", "65", "66", "--tokenizer", "bpe.json"),
    "tokenizer info": ("tokenizer", "info", "--tokenizer", "bpe.json"),
}

# Minutes of training, and a window of the browser.
NOT_DRAWN = {("course", "--run"), ("train", "--minutes"), ("course", "--browser")}

# What a command may change of the world: the run it names, and the cache. Everything else that it found must stay.
OURS = ("runs/tiny", "runs/sharded", "runs/encoder", "runs/pairs", "shards", "cache")
NUMBERS = ("-1", "0", "1", "2", "3", "7", "0.5", "1e3", "1e-320", "1e308", "1e400", "nan", "inf", "-inf", "", "½",
           "0x10", str(2**31), str(2**32), str(2**63), str(10**12), str(10**20), "9" * 400, "9" * 5000)  # fmt: skip
NAMES = ("tiny", "runs/tiny", "encoder", "pairs",
         "sharded", "foreign", "shards", "hf", "hf-old", "text.txt", "texts", "bpe.json",
         "recipe.toml", "suite.jsonl", "documents.jsonl", "empty", "empty.txt", "binary", "fifo", "zero", "full",
         "nowhere", "loop", "not-there", "text.txt/x", "char-tiny", "gpt2-mini", "auto", "-", "", " ", ".", "..",
         "~nosuchuser/x", "~", "a" * 300, "a/" * 3000, "none", "cpu", "this", "best", "last", "float32",
         *(f"odd/{os.fsdecode(name)}" for name in ODD_NAMES))  # fmt: skip


@dataclass(frozen=True)
class Option:
    """A parameter of a verb: its flag, or None for an argument, and a way to draw an odd value."""

    flag: str | None
    draw: Callable[[Random], str] | None  # None: a switch


def options_of(verb: str) -> list[Option]:
    """Every option and argument of a verb, as the app declares them: a new one is covered by itself."""
    found = []
    for parameter in VERBS[verb].params:
        is_option = parameter.param_type_name == "option"
        for flag in (*parameter.opts, *parameter.secondary_opts) if is_option else (None,):
            if (verb, flag) in NOT_DRAWN:
                continue
            switch = is_option and parameter.is_flag
            found.append(Option(flag, None if switch else _values(parameter)))
    return found


def _values(parameter: Any) -> Callable[[Random], str]:
    if parameter.name == "set":
        return draw_setting
    kind = parameter.type_descriptor.annotation
    if kind in (int, float):
        return lambda random: random.choice(NUMBERS)
    choices = get_args(kind) * 10 if get_origin(kind) is Literal else ()
    return lambda random: random.choice((*choices, *NAMES, *NUMBERS, _bytes(random), _bytes(random)))


def _bytes(random: Random) -> str:
    """A short argument of any bytes, which need not be UTF-8."""
    return os.fsdecode(bytes(random.randrange(1, 256) for _ in range(random.randrange(12))))


def _fields() -> list[str]:
    models = {field.name for kind in ARCHITECTURES.values() for field in dataclasses.fields(kind.config)}
    named = [f"{name}.{field.name}" for name, kind in SECTIONS.items() for field in dataclasses.fields(kind)]
    return [*named, *[f"model.{name}" for name in sorted(models)] * 4, "model.architecture", "no.such", "section"]


FIELDS = _fields()
TOML = ("true", "[]", '["a"]', "{}", "[" * 1000, "1979-05-27", '"\\u0000"', "1_0", "'a'")


def draw_setting(random: Random) -> str:
    """A value of `--set`: any field of a run's config with any value."""
    return f"{random.choice(FIELDS)}={random.choice(random.choice((NUMBERS, NUMBERS, TOML, NAMES)))}"


def _walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _walk(inner, (*path, name))
    else:
        yield " ".join(path), command


VERBS: dict[str, Any] = dict(_walk(typer.main.get_command(app), ()))


def draw_use(random: Random) -> tuple[str, ...]:
    """A use of any verb with one to three of its options set to odd values."""
    verb = random.choice(sorted(VERBS))
    run = random.choice(("tiny", "tiny", "encoder", "pairs"))
    command = [run if word == "tiny" else word for word in USES[verb]]
    options = options_of(verb)
    for option in random.choices(options, k=random.randint(1, 3)) if options else ():
        if option.draw is None:
            command.append(str(option.flag))
        elif option.flag is not None:
            command += [option.flag, option.draw(random)]
        else:
            value, place = option.draw(random), len(verb.split())
            if len(command) > place and not command[place].startswith("-") and not value.startswith("-"):
                command[place] = value
    return tuple(command)
