"""Takes the pictures of `glassgpt look` in the README and docs/, in a headless Chromium or Chrome.

    python tools/screenshots.py RUN docs/look.png [--view inside] [--query "head=1.2&dark=1"] [--width 1280]

RUN is a trained run. A run of `char-tiny` on Tiny Shakespeare is the one in the README.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sys
import threading
import time
from pathlib import Path

import uvicorn
from playwright.sync_api import sync_playwright

from glassgpt.runs.folder import RUNS, find_run
from glassgpt.server.app import build_app
from glassgpt.server.guard import Access
from glassgpt.server.library import Library
from glassgpt.server.workbench import Workbench

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def main() -> None:
    """Serves the run on a free port, and takes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--view", default="inside")
    parser.add_argument("--query", default="", help="the state of the view, as in its address")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    found = next((path for name in (os.environ.get("CHROME", ""), *BROWSERS) if (path := shutil.which(name))), None)
    if found is None:
        sys.exit("tools/screenshots.py needs Chromium or Chrome: install one, or name it in CHROME")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        app = build_app(Library([find_run(options.run)], RUNS), Workbench("cpu"), Access("127.0.0.1", port))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{port}/{options.view}?{options.query}"
        take(found, address, options)
        server.should_exit = True
        thread.join()


def take(browser: str, address: str, options: argparse.Namespace) -> None:
    """Opens the address, waits until nothing moves, and writes the picture of its first screen."""
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox", "--no-proxy-server"])
        page = chromium.new_page(
            viewport={"width": options.width, "height": options.height},
            color_scheme="dark" if options.dark else "light",
        )
        page.goto(address)
        page.wait_for_selector("main h1")
        page.wait_for_load_state("networkidle") if options.view != "runs" else time.sleep(2)
        page.screenshot(path=options.picture)
        chromium.close()


if __name__ == "__main__":
    main()
