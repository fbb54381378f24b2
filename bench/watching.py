"""How much slower a run trains while a page of `glassgpt look` watches it.

    python bench/watching.py                        # a page in headless Chromium, if there is one
    python bench/watching.py --client stream        # only the stream of events, without a browser

The same run is trained alone and watched, in turn. Compared are the seconds of training that the run itself records. A
browser on the same machine needs processor time to draw. The share of one core that the server takes is printed too: it
holds on a busy machine, where the ratio does not.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import math
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    pid: int
    address: str

    def processor_seconds(self) -> float:
        """Processor time that it has taken so far; NaN where there is no /proc."""
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return math.nan


def train(folder: Path, text: Path, steps: int) -> float:
    """Trains char-tiny for some steps; returns the seconds that the run has recorded at its last step."""
    run = folder / "runs" / "watched"
    command = [sys.executable, "-m", "glassgpt", "train", "char-tiny", "--data", str(text), "--run", str(run)]
    command += ["--overwrite", "--max-steps", str(steps), "--set", f"schedule.decay_steps={steps}"]
    subprocess.run(command, check=True, cwd=folder, capture_output=True)
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return float(max(line.get("seconds", 0.0) for line in lines))


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Server]:
    """`glassgpt look` over the folder, on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "glassgpt", "look", "--no-browser", "--port", str(port)]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = Server(process.pid, f"http://127.0.0.1:{port}")
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.address}/api/runs"):
                break
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def watching(address: str, client: str) -> Iterator[None]:
    """A client that watches the run: a page in a browser, or the stream of events alone."""
    if client == "page":
        program = next(path for name in BROWSERS if (path := shutil.which(name)))
        with tempfile.TemporaryDirectory() as profile:
            command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
            command += [f"--user-data-dir={profile}", f"{address}/runs?run=watched"]
            page = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(5)  # it has started, and no longer counts
            try:
                yield
            finally:
                page.terminate()
                page.wait()
        return
    answer = urllib.request.urlopen(f"{address}/api/live?run=watched")

    def listen() -> None:
        with contextlib.suppress(http.client.HTTPException, OSError):  # the server ends first
            answer.read()

    threading.Thread(target=listen, daemon=True).start()
    yield


def main() -> None:
    """Measures, and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--client", choices=["page", "stream"], default="page" if any(map(shutil.which, BROWSERS)) else "stream"
    )
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("GLASSGPT_CACHE", str(folder / "cache"))
        text = folder / "text.txt"
        text.write_text("".join(f"The cat number {n} sat on mat {n * n % 97}.\n" for n in range(20_000)))
        train(folder, text, 20)  # the run is there, and its text is tokenised
        ratios, shares = [], []
        for _ in range(arguments.repeats):
            alone = train(folder, text, arguments.steps)
            with served(folder) as server, watching(server.address, arguments.client):
                before = server.processor_seconds()
                watched = train(folder, text, arguments.steps)
                taken = server.processor_seconds() - before
            ratios.append(watched / alone)
            shares.append(taken / watched)
            print(
                f"alone {alone:.2f} s, watched {watched:.2f} s: {ratios[-1]:.3f}; server {shares[-1]:.1%}", flush=True
            )
        print(
            f"median {statistics.median(ratios):.3f}, with a {arguments.client} watching;"
            f" the server took {statistics.median(shares):.1%} of one core"
        )


if __name__ == "__main__":
    main()
