"""How many checkpoints a second the film of Inside draws, in a real headless Chromium.

    python bench/film_speed.py RUN [RUN ...]

Each film is played twice: first every frame is computed, then the page has kept them. Painted frames count.
The browser is the one that CHROME names, or the first Chromium or Chrome of this machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLAY = """async () => {
  const shown = () => document.querySelector(".film .mono").innerText;
  const button = document.querySelector(".film button");
  const seen = new Map();  // what a frame says -> when it was painted first
  const before = shown();
  button.click();
  await new Promise((done) => {
    const look = (now) => {
      if (shown() !== before || seen.size > 0) if (!seen.has(shown())) seen.set(shown(), now);
      if (seen.size > 1 && button.getAttribute("aria-label") !== "pause") done();
      else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  });
  return [...seen.values()];
}"""


def main() -> None:
    """Prints a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    options = parser.parse_args()
    named = (os.environ.get("CHROME", ""), *BROWSERS)
    browser = next((path for name in named if name and (path := shutil.which(name))), None)
    if browser is None:
        parser.error("there is no Chromium or Chrome: name one in CHROME")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for run in options.runs:
            with served(run) as address:
                page = chromium.new_page()
                page.goto(f"{address}inside")
                page.locator(".film input").wait_for()
                times: list[list[float]] = [page.evaluate(PLAY) for _ in range(2)]
                page.close()
            told = [f"{(len(frames) - 1) / (frames[-1] - frames[0]) * 1e3:.1f}" for frames in times]
            print(f"{run.name}: {len(times[0])} checkpoints, {told[0]} a second computed, {told[1]} a second kept")
        chromium.close()
    print(f"load of this machine: {', '.join(f'{load:.1f}' for load in os.getloadavg())} on {os.cpu_count()} cores")


@contextmanager
def served(run: Path) -> Iterator[str]:
    """The address of `glassgpt look` over one run, on a free port."""
    command = [sys.executable, "-m", "glassgpt", "look", str(run), "--no-browser", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            yield process.stderr.readline().split()[0]
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
