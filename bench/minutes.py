"""Checks `glassgpt train --minutes`: does it take its time, and is its size the best of its neighbours?

    python bench/minutes.py --data tinyshakespeare.txt --minutes 1 --minutes 3

For each text and time, in turn: the size that was chosen, the next smaller and larger one with the same settings, and
char-tiny, if it is not left out. Each is a whole process of `glassgpt train`; nothing else should run beside it. The
losses are those on the whole validation split. With --json, one object at the end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from glassgpt.runs.config import load_config
from glassgpt.runs.minutes import RECIPE, SIZES, Size


def train(arguments: Sequence[object], run: Path) -> dict[str, Any]:
    """Seconds of a whole process, its steps and its loss."""
    command = [sys.executable, "-P", "-m", "glassgpt", "train", *arguments, "--run", run, "--overwrite", "--json"]
    began = time.perf_counter()
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(done.stderr)
    told = json.loads(done.stdout)
    config = load_config(run / "config.toml")
    replanned = len(config.schedule.replanned)
    return {"seconds": seconds, "steps": told["steps"], "val_loss": told["val_loss"], "replanned": replanned}


def neighbours(run: Path) -> dict[str, list[str]]:
    """The options for the sizes next to the one that was chosen, with its dropout."""
    config = load_config(run / "config.toml")
    model: Any = config.model
    at = SIZES.index(Size(model.n_layer, model.n_head, model.n_embd))
    kept = {"model.dropout": model.dropout, "model.ngram_dropout": model.ngram_dropout}
    found = {}
    for name, place in (("half", at - 1), ("double", at + 1)):
        if 0 <= place < len(SIZES):
            settings = SIZES[place].settings | kept
            found[name] = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return found


def compare(data: str, minutes: float, seed: int, folder: Path, *, control: bool) -> Iterator[dict[str, Any]]:
    """A row for each contender, in the order in which they ran; `control` is char-tiny."""
    common = ["--data", data, "--minutes", minutes, "--seed", seed]
    contenders: dict[str, list[Any]] = {"chosen": common}
    for name in ("chosen", "half", "double", "char-tiny"):
        if name not in contenders:
            continue
        found = train(contenders[name], folder / name)
        if name == "chosen":
            near = neighbours(folder / "chosen")
            contenders |= {side: [RECIPE, *common, *sets] for side, sets in near.items()}
            if control:
                contenders["char-tiny"] = ["char-tiny", *common]
        model: Any = load_config(folder / name / "config.toml").model
        sizes = {"n_layer": model.n_layer, "n_embd": model.n_embd}
        yield {"data": Path(data).stem, "minutes": minutes, "contender": name, **sizes, **found}


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", action="append", help="a text, as for glassgpt train; repeatable (shakespeare)")
    parser.add_argument("--minutes", type=float, action="append", help="a time; repeatable (1 by default)")
    parser.add_argument("--seed", type=int, default=1, help="the seed of every run")
    parser.add_argument("--without-control", action="store_true", help="leave char-tiny out")
    parser.add_argument("--json", action="store_true", help="one JSON object at the end")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="glassgpt-minutes-") as scratch:
        for data, minutes in itertools.product(options.data or ["shakespeare"], options.minutes or [1.0]):
            for row in compare(data, minutes, options.seed, Path(scratch), control=not options.without_control):
                rows.append(row)
                print(
                    f"{row['data']}  {minutes:g} min  {row['contender']:9}  {row['n_layer']} x {row['n_embd']:3}"
                    f"  {row['seconds']:6.1f} s  {row['steps']:6,} steps  {row['val_loss']:.4f}",
                    file=sys.stderr if options.json else sys.stdout,
                    flush=True,
                )
    if options.json:
        print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
