"""A real browser on the pages of `glassgpt look`, over a folder of small trained runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from serving import Site, served

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SETTINGS = {
    "model.n_layer": 2, "model.n_head": 2, "model.block_size": 32, "schedule.warmup_steps": 10,
    "training.batch_tokens": 256, "training.max_steps": 60, "machine.device": "cpu",
    "evaluation.every": 10, "evaluation.tokens": 500, "evaluation.sample_every": 20, "evaluation.sample_tokens": 20,
    "evaluation.log_every": 1, "checkpoint.every": 20, "checkpoint.snapshots": 6,
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs a browser, so that `-m browser` selects it."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def trained_runs(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs of 60 steps, `small` and `wide`, with several checkpoints. Not to be changed."""
    import glassgpt as gg

    root = tmp_path_factory.mktemp("browser") / "runs"
    root.mkdir()
    (source := root.parent / "sentences.txt").write_text(text, encoding="utf-8")
    for name, width in (("small", 32), ("wide", 48)):
        gg.train(
            "char-tiny",
            data=source,
            run=root / name,
            settings=SETTINGS | {"model.n_embd": width},
            listener=gg.Listener(),
        )
    return root


@pytest.fixture
def runs_folder(trained_runs: Path, tmp_path: Path) -> Path:
    """A copy of the trained runs, to change."""
    return Path(shutil.copytree(trained_runs, tmp_path / "runs"))


@pytest.fixture(scope="session")
def site(trained_runs: Path) -> Iterator[Site]:
    """A server over the two trained runs."""
    with served(trained_runs) as found:
        yield found


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Site]]:
    """`serve(folder)` starts a server over the runs of a folder; it ends with the test."""
    with ExitStack() as stack:
        yield lambda root: stack.enter_context(served(root))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium or Chrome of this machine; skips the test where there is none.

    While it is open, an event loop runs in this thread, and `asyncio.run` refuses to start another one. So it is closed
    before the tests of other modules.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    named = os.environ.get("CHROME", "")
    found = next((path for name in (named, *BROWSERS) if name and (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("needs Chromium or Chrome: install one, or name it in CHROME")
    # Playwright's driver is a program on this machine; no_proxy keeps a proxy of the environment away from the pages.
    with mock.patch.dict(os.environ, {"no_proxy": "127.0.0.1,localhost"}), playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--no-proxy-server", "--disable-background-networking"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def hold() -> Callable[[Any, str], Callable[[], None]]:
    """`release = hold(page, pattern)`: the requests of a page for such addresses wait until `release()` is called."""

    def hold_back(page: Any, pattern: str) -> Callable[[], None]:
        held: list[Any] = []

        def keep(route: Any) -> None:
            held.append(route)

        def release() -> None:
            for route in held:
                route.continue_()
            page.unroute(pattern, keep)

        page.route(pattern, keep)
        return release

    return hold_back


@pytest.fixture
def check_wcag() -> Callable[[Any, int], None]:
    """`check_wcag(page, width)` fails if a page breaks a rule of axe-core, or is wider than its window."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")

    def check(page: Any, width: int) -> None:
        found = axe.Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
        wrong = [
            f"{rule['id']}: {node['html'][:120]} {node['failureSummary']}"
            for rule in found.response["violations"]
            for node in rule["nodes"][:3]
        ]
        assert not wrong, "\n".join(wrong)
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    return check


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """`open_page(url, width=1280, dark=False, expected="…", origin=…)` is a page of its own window.

    At its end the test fails if a page has logged an error without the words `expected`, or has asked another host than
    `origin`, which is that of the url if it is not given.
    """
    contexts, problems = [], []

    def open_one(url: str, *, width: int = 1280, dark: bool = False, expected: str = "\0", origin: str = "") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)  # a loaded machine can stand still for half a minute
        if rate := os.environ.get("GLASSGPT_TEST_THROTTLE"):
            context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": float(rate)})
        page.on("console", lambda message: note(message.type, message.text))
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))

        def note(kind: str, text: str) -> None:
            if kind == "error" and expected not in text:
                problems.append(f"console: {text}")

        allowed = origin or "/".join(url.split("/")[:3]) + "/"

        def check(request: Any) -> None:
            if not request.url.startswith((allowed, "data:", "blob:")):
                problems.append(f"asked another host: {request.url}")

        page.on("request", check)
        page.goto(url)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert problems == []
