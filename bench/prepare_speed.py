"""The speed of `data prepare` beside that of tiktoken alone, and the memory that it takes for a large input.

    python bench/prepare_speed.py                     # speed, on 60 MB
    python bench/prepare_speed.py --gigabytes 1       # and memory, on a file of 1 GB

Both tokenise the source code of Python's library with GPT-2's vocabulary on as many cores, in turn. tiktoken has all
texts in memory and leaves lists of ids there; `data prepare` reads JSON lines and writes shards.
The ratio of processor time holds on a busy machine too, where the share that each gets differs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import tiktoken

from glassgpt.data.corpus_to_shards import shard_corpus
from glassgpt.data.sharding_state import ShardingConfig
from glassgpt.data.sources import find_files
from glassgpt.tokenizers.threads import available_cores


def iter_texts(size: int) -> Iterator[str]:
    """About `size` characters of source code, the same files again where that is more than there is."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    total = 0
    for number, path in enumerate(itertools.cycle(paths)):
        if total >= size:
            return
        text = f"# {number}\n" + path.read_text(encoding="utf-8", errors="replace")
        total += len(text)
        yield text


def write_json_lines(path: Path, size: int) -> None:
    """The texts as a corpus."""
    with path.open("w") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in iter_texts(size))


def measure_speed(folder: Path, size: int, repeats: int, workers: int) -> None:
    """Prints seconds of both, and their ratio, for each repeat and in the median."""
    encoding = tiktoken.get_encoding("gpt2")
    texts = list(iter_texts(size))
    write_json_lines(folder / "corpus.jsonl", size)
    source = find_files([str(folder / "corpus.jsonl")], "text")
    config = ShardingConfig(shard_tokens=5_000_000, workers=workers)
    ratios, processor_ratios = [], []
    for number in range(repeats):
        began, busy = time.perf_counter(), processor_seconds()
        ids = encoding.encode_ordinary_batch(texts, num_threads=workers)
        bare, bare_busy = time.perf_counter() - began, processor_seconds() - busy
        n_tokens = sum(map(len, ids)) + len(texts)
        del ids
        began, busy = time.perf_counter(), processor_seconds()
        dataset = shard_corpus(source, folder / f"shards-{number}", config)
        ours, ours_busy = time.perf_counter() - began, processor_seconds() - busy
        assert len(dataset.train) + len(dataset.val) == n_tokens
        ratios.append(bare / ours)
        processor_ratios.append(bare_busy / ours_busy)
        print(
            f"{n_tokens:,} tokens, {workers} workers: tiktoken {bare:.2f} s ({n_tokens / bare:,.0f} tokens/s), "
            f"data prepare {ours:.2f} s ({n_tokens / ours:,.0f} tokens/s), ratio {ratios[-1]:.2f}, "
            f"of processor time {processor_ratios[-1]:.2f}",
            flush=True,
        )
    print(
        f"ratio of the throughputs, median of {repeats}: {statistics.median(ratios):.2f}, "
        f"of processor time {statistics.median(processor_ratios):.2f}"
    )


def processor_seconds() -> float:
    """The processor time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measure_memory(folder: Path, size: int, workers: int) -> None:
    """Prints the peak resident memory of the command, which tokenises in threads. Linux only."""
    path = folder / "large.jsonl"
    write_json_lines(path, size)
    command = [
        sys.executable, "-m", "glassgpt", "data", "prepare", str(path), "--out", str(folder / "large"),
        "--workers", str(workers), "--shard-tokens", "20000000",
    ]  # fmt: skip
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident(str(process.pid)))
        time.sleep(0.1)
    seconds = time.perf_counter() - began
    print(f"{path.stat().st_size / 1e9:.2f} GB in {seconds:.0f} s: peak {peak / 1e6:.0f} MB with {workers} workers")


def resident(pid: str) -> int:
    """The resident memory of a process in bytes; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=available_cores())
    parser.add_argument("--gigabytes", type=float, default=0.0, help="size of the input whose memory is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="glassgpt-prepare-speed-") as name:
        measure_speed(Path(name), options.megabytes * 1_000_000, options.repeats, options.workers)
        if options.gigabytes:
            measure_memory(Path(name), int(options.gigabytes * 1e9), options.workers)


if __name__ == "__main__":
    main()
