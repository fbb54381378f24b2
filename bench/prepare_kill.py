"""Kills `glassgpt data prepare` with SIGKILL at random moments, gives the same command again, and compares the shards.

    python bench/prepare_kill.py --kills 20

The corpus is the source code of Python's library, as JSON lines, CSV and text, compressed and not. Each command has
another number of workers. A folder that was finished before its next kill is compared, and another one begun.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path


def write_corpus(folder: Path, size: int) -> list[str]:
    """About `size` characters of documents, in four files of different formats."""
    folder.mkdir()
    texts, total = [], 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        texts.append(path.read_text(encoding="utf-8", errors="replace"))
        total += len(texts[-1])
        if total >= size:
            break
    third = len(texts) // 3
    with (folder / "a.jsonl").open("w") as plain:
        plain.writelines(json.dumps({"text": text}) + "\n" for text in texts[:third])
    with gzip.open(folder / "b.jsonl.gz", "wt") as packed:
        packed.writelines(json.dumps({"text": text}) + "\n" for text in texts[third : 2 * third])
    with (folder / "c.csv").open("w", newline="") as table:
        csv.writer(table).writerows([["text"], *([text] for text in texts[2 * third :])])
    (folder / "d.txt").write_text("".join(texts[:third]), newline="")
    return [str(folder / name) for name in ("a.jsonl", "b.jsonl.gz", "c.csv", "d.txt")]


def prepare(files: list[str], out: Path, shard_tokens: int, workers: int, kill_after: float | None = None) -> bool:
    """Runs the command; True if it ended by itself, False if it, and all its processes, were killed."""
    command = [
        sys.executable, "-m", "glassgpt", "data", "prepare", *files, "--out", str(out), "--tokenizer", "gpt2",
        "--shard-tokens", str(shard_tokens), "--workers", str(workers),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    try:
        _, errors = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return False
    if process.returncode != 0:
        raise SystemExit(f"the preparation failed: {errors.decode()}")
    return True


def contents(folder: Path) -> dict[str, str]:
    """The sha256 of every file that is not hidden."""
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main() -> None:
    """Prints one line a kill, and at the end how many folders were identical; exits 1 if one was not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--shard-tokens", type=int, default=500_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="glassgpt-prepare-kill-") as name:
        folder = Path(name)
        files = write_corpus(folder / "corpus", options.megabytes * 1_000_000)
        began = time.perf_counter()
        prepare(files, folder / "reference", options.shard_tokens, workers=1)
        length = time.perf_counter() - began
        expected = contents(folder / "reference")
        print(f"uninterrupted, one worker: {length:.1f} s, {len(expected)} files", flush=True)

        folders, different, kills = 0, 0, 0
        while kills < options.kills:
            out = folder / f"killed-{folders}"
            while kills < options.kills:
                workers = moments.choice([1, 2, 3])
                moment = moments.uniform(0.0, 0.4 * length)
                if prepare(files, out, options.shard_tokens, workers, kill_after=moment):
                    break
                kills += 1
                shards = len(list(out.glob("*.shard"))) if out.exists() else 0
                print(f"kill {kills}: {workers} workers, after {moment:.1f} s, {shards} shards there", flush=True)
            prepare(files, out, options.shard_tokens, workers=2)
            folders += 1
            different += contents(out) != expected
        print(f"{kills} kills, folders identical: {folders - different} of {folders}")
        sys.exit(different > 0)


if __name__ == "__main__":
    main()
