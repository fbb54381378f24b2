"""The view of runs in a browser: curves, choices, runs that grow and runs that are damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import Site

from glassgpt.report.curves import smooth
from glassgpt.report.daybook import add_note
from glassgpt.server import live
from glassgpt.training.metrics import cut_back

Open = Callable[..., Any]


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def append(run: Path, *lines: dict[str, Any], file: str = "metrics.jsonl") -> None:
    with (run / file).open("a") as out:
        out.writelines(json.dumps(line) + "\n" for line in lines)


def step_line(step: int, loss: float) -> dict[str, Any]:
    return {"step": step, "tokens_seen": step * 256, "train/loss": loss, "lr": 1e-3, "grad_norm": 1.0,
            "tokens_per_second": 9000.0, "seconds": step * 0.5}  # fmt: skip


# The number of pixels of the loss chart that have the colour of the first curve.
INK = """() => {
  const canvas = document.querySelector("[aria-label=Loss] canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i] < 20 && data[i + 1] > 90 && data[i + 2] > 150) count += 1;
  }
  return count;
}"""


@pytest.fixture
def training(runs_folder: Path) -> Path:
    """A run that is being trained: 20 of its 60 steps are done."""
    shutil.rmtree(runs_folder / "wide")
    run = runs_folder / "small"
    cut_back(run / "metrics.jsonl", lambda line: line["step"] <= 20 and not line.get("final"))
    cut_back(run / "samples.jsonl", lambda line: line["step"] <= 20)
    return run


def test_a_finished_run(site: Site, open_page: Open) -> None:
    page = open_page(f"{site.address}/runs?run=small")
    page.locator(".answer", has_text="small ended at").wait_for()
    page.locator(".answer", has_text="what counting").wait_for()
    assert page.get_by_role("heading", level=1).inner_text() == "How does it learn?"
    titles = page.locator("figure.chart h2").all_inner_texts()
    assert titles == ["Loss, nats per token", "Gradient norm", "Learning rate", "Throughput, tokens per second",
                      "Validation bits per byte"]  # fmt: skip
    page.wait_for_function(f"() => ({INK})() > 100")
    picture = page.get_by_role("img").first.get_attribute("aria-label")
    assert "training: from" in picture
    assert "validation: from" in picture
    page.get_by_text("as a table").first.click()
    rows = page.locator("[aria-label=Loss] tbody tr")
    rows.nth(11).wait_for()
    assert rows.last.inner_text().startswith("60")


def test_choices_are_in_the_address(site: Site, open_page: Open) -> None:
    page = open_page(f"{site.address}/runs?run=small")
    page.get_by_role("checkbox", name="draw wide").check()
    page.get_by_role("combobox").select_option("tokens")
    page.get_by_label("log loss").check()
    page.get_by_label("smooth").fill("7")
    page.get_by_text("All read the same tokens").wait_for()
    for choice in ("also=wide", "x=tokens", "logy=1", "smooth=7"):
        assert choice in page.url
    differs = page.get_by_role("region", name="Settings")
    assert differs.get_by_role("rowheader").all_inner_texts() == ["model.n_embd"]
    again = open_page(page.url)
    again.get_by_text("All read the same tokens").wait_for()
    assert again.get_by_role("checkbox", name="draw wide").is_checked()
    assert again.get_by_label("smooth").input_value() == "7"


def test_zoom_by_dragging_and_back(site: Site, open_page: Open) -> None:
    page = open_page(f"{site.address}/runs?run=small")
    page.locator(".answer", has_text="what counting").wait_for()  # the last answer, which may move the chart
    box = page.locator(".u-over").first.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.5, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, middle, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="whole run").wait_for()
    page.wait_for_url("**from=**")
    page.get_by_text("as a table").first.click()
    assert 25 <= int(page.locator("[aria-label=Loss] tbody th").first.inner_text()) <= 35
    page.get_by_role("button", name="whole run").click()
    page.get_by_role("button", name="whole run").wait_for(state="detached")
    assert "from=" not in page.url


def test_the_pointer_reads_values(site: Site, open_page: Open) -> None:
    page = open_page(f"{site.address}/runs?run=small")
    readout = page.locator(".readout").first
    page.locator(".readout", has_text="last").first.wait_for()
    page.locator(".u-over").first.hover()
    page.locator(".readout", has_text="step 3").first.wait_for()
    assert "training" in readout.inner_text()


def test_smoothing_is_that_of_the_report_and_thinning_keeps_every_spike(site: Site, open_page: Open) -> None:
    y = np.random.default_rng(0).normal(size=5000).round(3)
    y[[1234, 4000]] = [50, -50]
    page = open_page(f"{site.address}/runs?run=small")
    smoothed, (xs, ys) = page.evaluate(
        """async (y) => {
          const { smooth, thin } = await import("glass/columns.js");
          return [[...smooth(y, 25)], thin({ x: y.map((_, i) => i), y })];
        }""",
        y.tolist(),
    )
    assert smoothed == pytest.approx(smooth(y, 25).tolist())
    assert len(xs) <= 1202
    assert xs == sorted(xs)
    assert {(1234, 50), (4000, -50)} <= set(zip(xs, ys, strict=True))
    assert ys == [y[x] for x in xs]


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_all_of_it(site: Site, open_page: Open, dark: bool) -> None:
    page = open_page(f"{site.address}/runs?run=small&also=wide", width=400, dark=dark)
    page.locator(".u-over").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_keys_reach_the_controls(site: Site, open_page: Open) -> None:
    page = open_page(f"{site.address}/runs?run=small")
    page.get_by_label("smooth").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.wait_for_url("**smooth=3**logy=1")


def test_a_live_run_grows(
    training: Path, serve: Callable[[Path], Site], open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 0.05)
    page = open_page(f"{serve(training.parent).address}/runs?smooth=0")
    page.locator(".answer", has_text="20 of 60 steps").wait_for()
    before = page.evaluate(INK)
    append(training, *(step_line(step, 3.0) for step in range(21, 41)))
    page.locator(".answer", has_text="40 of 60 steps").wait_for()
    page.locator("dl div", has_text="time left").locator("dd", has_text="10 s").wait_for()
    append(training, {"step": 40, "prompt": "", "text": "<img src=x onerror=alert(1)>"}, file="samples.jsonl")
    page.locator("pre", has_text="<img src=x onerror=alert(1)>").wait_for()
    page.wait_for_function(f"before => ({INK})() !== before", arg=before)
    cut_back(training / "metrics.jsonl", lambda line: line["step"] <= 30)
    page.locator(".answer", has_text="30 of 60 steps").wait_for()
    append(training, step_line(31, 2.5), {"step": 31, "final": True, "train/loss": 2.5, "val/loss": 1.5})
    page.locator(".answer", has_text="small ended at 1.50 nats per token after 31 steps").wait_for()


def test_a_sample_that_comes_while_a_finished_run_is_read_again_stays(
    training: Path, serve: Callable[[Path], Site], open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 0.05)
    page = open_page(f"{serve(training.parent).address}/runs?run=small")
    page.locator(".answer", has_text="20 of 60 steps").wait_for()
    append(training, step_line(21, 3.0))
    page.locator(".answer", has_text="21 of 60 steps").wait_for()  # all of the run is read, and it is followed
    page.evaluate(
        """() => {
          const ask = fetch;
          window.fetch = async (path, ...options) => {
            const answer = await ask(path, ...options);
            if (path === "/api/runs/small") await new Promise((done) => { window.letGo = done; });
            return answer;
          };
        }"""
    )
    add_note(training, "of the late answer")
    append(training, {"step": 21, "final": True, "train/loss": 2.5, "val/loss": 1.5})
    page.wait_for_function("() => window.letGo")  # the answer of this moment, which comes later
    append(training, {"step": 21, "prompt": "", "text": "the last words"}, file="samples.jsonl")
    page.locator("pre", has_text="the last words").wait_for()
    page.evaluate("window.letGo()")
    page.get_by_text("of the late answer").wait_for()
    assert "the last words" in page.locator("pre.sample").inner_text()


@pytest.mark.parametrize("runs_every", [1, 5])  # at 1 the page hears that the run is gone before its file is
def test_a_run_that_is_replaced_is_read_again(
    training: Path, serve: Callable[[Path], Site], open_page: Open, monkeypatch: pytest.MonkeyPatch, runs_every: int
) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(live, "RUNS_EVERY", runs_every)
    page = open_page(f"{serve(training.parent).address}/runs?run=small", expected="404")
    page.locator(".answer", has_text="20 of 60 steps").wait_for()
    shutil.move(training, training.parent.parent / "aside")
    page.get_by_text("There is no run yet").wait_for()
    (training.parent.parent / "aside" / "metrics.jsonl").write_text("")
    append(training.parent.parent / "aside", *(step_line(step, 4.0) for step in range(1, 6)))
    shutil.move(training.parent.parent / "aside", training)
    page.locator(".answer", has_text="small is at a training loss of 4.00").wait_for()
    page.locator("dd", has_text="5 of 60").wait_for()


def test_a_page_finds_the_server_again(training: Path, serve: Callable[[Path], Site], open_page: Open) -> None:
    page = open_page(f"{serve(training.parent).address}/runs", expected="ERR_INTERNET_DISCONNECTED")
    page.locator(".answer", has_text="20 of 60 steps").wait_for()
    append(training, step_line(21, 3.0))
    page.locator(".answer", has_text="21 of 60 steps").wait_for()  # the page follows the run now
    page.context.set_offline(True)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    append(training, step_line(22, 3.0))
    page.get_by_text("The connection to glassgpt look is lost").wait_for()
    page.context.set_offline(False)
    page.locator(".answer", has_text="22 of 60 steps").wait_for()
    page.get_by_text("The connection to glassgpt look is lost").wait_for(state="detached")


def test_an_empty_folder_waits_for_a_run(
    trained_runs: Path, tmp_path: Path, serve: Callable[[Path], Site], open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 0.05)
    (tmp_path / "runs").mkdir()
    page = open_page(f"{serve(tmp_path / 'runs').address}/")
    page.get_by_text("There is no run yet").wait_for()
    shutil.copytree(trained_runs / "small", tmp_path / "runs" / "small")
    page.locator(".answer", has_text="small ended at").wait_for()


@pytest.mark.parametrize("damage", ["metrics.jsonl", "config.toml", "doctor.json"])
def test_a_damaged_run_shows_what_it_can(
    runs_folder: Path, serve: Callable[[Path], Site], open_page: Open, damage: str
) -> None:
    path = runs_folder / "small" / damage
    path.write_bytes(b"{damaged\n" + (path.read_bytes() if path.exists() else b""))
    page = open_page(f"{serve(runs_folder).address}/runs?run=small")
    page.get_by_text("Not all of small can be read: ").wait_for()
    page.wait_for_function(f"() => document.querySelector('.u-over') && ({INK})() > 100")


def test_an_imported_run_has_no_curves(runs_folder: Path, serve: Callable[[Path], Site], open_page: Open) -> None:
    run = runs_folder / "small"
    for name in ("metrics.jsonl", "samples.jsonl", "data.json"):
        (run / name).unlink()
    config = (run / "config.toml").read_text()
    assert "stage =" in config
    (run / "config.toml").write_text(config.replace('stage = "pretrain"', 'stage = "none"'))
    page = open_page(f"{serve(runs_folder).address}/runs?run=small")
    page.get_by_text("small was imported and not trained here").wait_for()
    assert page.locator(".u-over").count() == 0


def test_a_name_is_shown_and_not_executed(runs_folder: Path, serve: Callable[[Path], Site], open_page: Open) -> None:
    name = "<b onclick=alert(1)>&amp; 100% #?+"
    (runs_folder / "small").rename(runs_folder / name)
    site = serve(runs_folder)
    page = open_page(f"{site.address}/runs")
    page.get_by_role("button", name=name).click()
    page.locator(".answer", has_text=f"{name} ended at").wait_for()
