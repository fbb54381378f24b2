"""The page a run is shown on: what it says, and that nothing in it can load or run what is not its own."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glassgpt.errors import UserError
from glassgpt.report.run_page import write_comparison, write_report

CONFIG = """\
architecture = "gpt2"
[model]
n_layer = 4
[tokenizer]
name = "char"
[training]
max_steps = 400
"""


def training(step: int, **figures: Any) -> dict[str, Any]:
    line = {"step": step, "tokens_seen": step * 768, "train/loss": 4.0 / (1 + step), "lr": 1e-3, "grad_norm": 0.5}
    return line | {"tokens_per_second": 9000.0, "seconds": step / 10} | figures


def validation(step: int, loss: float, **figures: Any) -> dict[str, Any]:
    return {"step": step, "val/loss": loss, "val/bits_per_byte": loss / 0.6931, "val/tokens": 20032} | figures


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished run with every part."""
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(CONFIG)
    (folder / "machine.json").write_text(
        json.dumps({"processor": "a processor", "parameters": 809856, "glassgpt": "0.1.0 (abc1234)"})
    )
    lines = [training(step) for step in range(1, 401)]
    lines += [validation(200, 2.25), validation(400, 2.125)]
    lines.append(validation(400, 2.1875, **{"val/tokens": 111539, "final": True, "seconds": 147.0}))
    write_lines(folder / "metrics.jsonl", lines)
    write_lines(folder / "samples.jsonl", [{"step": s, "prompt": "O", "text": f"O text {s}"} for s in (200, 400)])
    return folder


class Page(HTMLParser):
    """What a browser would find in the page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and self.cdata_elem == "script":
            self.scripts[-1] += data
        elif self.cdata_elem is None:
            self.text += data

    @property
    def data(self) -> Any:
        """What the script of the page draws."""
        return json.loads(self.scripts[0])

    def curve(self, chart: str, style: str) -> dict[str, Any]:
        (found,) = (drawn for drawn in self.data["charts"] if drawn["id"] == f"chart-{chart}")
        return next(curve for curve in found["curves"] if curve["style"] == style)


def test_a_finished_run_shows_its_figures(run_folder: Path) -> None:
    page = Page(write_report(run_folder))
    for shown in ("Finished after 400 steps", "2.1875", "final, on 111,539 tokens", "Best checkpoint", "307,200"):
        assert shown in page.text
    for shown in ("2 min 27 s", "809,856", "a processor", "abc1234", "n_layer"):
        assert shown in page.text


def test_every_chart_is_drawn(run_folder: Path) -> None:
    page = Page(write_report(run_folder))
    places = {attributes.get("id") for _, attributes in page.tags}
    assert len(page.data["charts"]) == 4
    assert all(chart["id"] in places and chart["curves"] for chart in page.data["charts"])
    assert page.curve("train-loss", "validation")["x"] == {
        "step": [200, 400],
        "tokens": [153600, 307200],
        "seconds": [20, 40],
    }


def test_the_script_finds_every_element_that_it_asks_for(run_folder: Path, tmp_path: Path) -> None:
    page = Page(write_report(run_folder))
    several = Page(write_comparison([run_folder, run_folder], tmp_path / "compared.html"))
    wanted = set(re.findall(r'\$\("([\w-]+)"\)', page.scripts[-1]))
    assert {"axis", "slider"} <= wanted
    assert wanted <= {attributes.get("id") for _, attributes in page.tags + several.tags}


def test_the_page_is_self_contained(run_folder: Path) -> None:
    page = Page(write_report(run_folder))
    loading = {"src", "href", "srcset", "data", "action", "poster", "background"}
    assert [(tag, attributes) for tag, attributes in page.tags if loading & attributes.keys()] == []
    style = page.html[: page.html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_only_the_scripts_of_the_page_may_run(run_folder: Path) -> None:
    page = Page(write_report(run_folder))
    policy = next(
        attributes["content"] for tag, attributes in page.tags if tag == "meta" and "http-equiv" in attributes
    )
    data, *scripts = page.scripts
    assert json.loads(data)
    assert len(scripts) == 2
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    assert policy is not None
    assert policy.startswith(f"default-src 'none'; script-src {allowed}; ")


@pytest.mark.parametrize(
    "hostile", ["</script><script>alert(1)</script>", "<!--<script>", "</pre><img src=x onerror=a()>"]
)
def test_text_of_the_run_is_never_markup(run_folder: Path, hostile: str) -> None:
    write_lines(run_folder / "samples.jsonl", [{"step": 1, "prompt": hostile, "text": hostile + "!"}])
    (run_folder / "config.toml").write_text(f"[model]\nname = '{hostile}'\n")
    (run_folder / "machine.json").write_text(json.dumps({hostile: hostile}))
    with (run_folder / "metrics.jsonl").open("a") as metrics:
        metrics.write(json.dumps({"step": 7, "skipped": hostile}) + "\n")
    page = Page(write_report(run_folder))
    assert len(page.scripts) == 3
    assert not any(tag == "img" for tag, _ in page.tags)
    assert page.text.count(hostile) == 4  # the sample, the setting, and both sides of the machine's
    assert page.curve("train-loss", "skipped")["text"] == [f"step 7: {hostile}"]


def test_a_sample_keeps_its_first_newline(run_folder: Path) -> None:
    write_lines(run_folder / "samples.jsonl", [{"step": 1, "prompt": "", "text": "\nFirst"}])
    html = write_report(run_folder).read_text()
    assert '<pre>\n<span class="prompt"></span>\nFirst</pre>' in html


def test_half_a_surrogate_pair_costs_no_report(run_folder: Path) -> None:
    (run_folder / "samples.jsonl").write_text('{"step": 1, "text": "a\\ud83d"}\n')
    assert "a?" in Page(write_report(run_folder)).text


def test_a_run_in_progress_says_so(run_folder: Path) -> None:
    write_lines(run_folder / "metrics.jsonl", [training(1), validation(1, 3.0), training(2)])
    text = Page(write_report(run_folder)).text
    assert "At step 2 of 400; in progress, or stopped before its end." in text
    assert "at step 1, on 20,032 tokens" in text


def test_a_run_without_measurements_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(CONFIG)
    page = Page(write_report(tmp_path))
    for missing in ("measured nothing yet", "No curves yet", "No samples yet", "has no machine.json"):
        assert missing in page.text
    assert page.data["charts"] == []


def test_a_figure_that_no_line_has_is_named(run_folder: Path) -> None:
    line = training(1)
    del line["grad_norm"]
    write_lines(run_folder / "metrics.jsonl", [line])
    page = Page(write_report(run_folder))
    assert "No “grad_norm” in metrics.jsonl yet." in page.text
    assert [chart["id"] for chart in page.data["charts"]] == ["chart-train-loss", "chart-lr", "chart-tokens_per_second"]


def test_skipped_and_non_finite_steps_are_marked(run_folder: Path) -> None:
    lines = [training(step) for step in range(1, 10)]
    lines[4] = {"step": 5, "skipped": "non-finite gradient", "tokens_seen": 3840}
    lines[6] = training(7, **{"train/loss": float("nan")})
    write_lines(run_folder / "metrics.jsonl", lines)
    page = Page(write_report(run_folder))
    marks = page.curve("train-loss", "skipped")
    assert marks["text"] == ["step 5: non-finite gradient", "step 7: loss is not finite"]
    assert marks["x"]["step"] == [5, 7]
    assert page.curve("train-loss", "line")["y"][5] is None  # step 7: a gap in the line


def test_a_half_written_last_line_is_left_out(run_folder: Path) -> None:
    with (run_folder / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 401, "train/lo')
    assert "Finished after 400 steps" in Page(write_report(run_folder)).text


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"step": 2, "train/lo', "line 2 is not a record"),
        ('{"train/loss": 2.0}', "line 2 is not a record with a step"),
        ("[1, 2]", "line 2 is not a record with a step"),
        ('{"step": "two"}', "line 2 .* step: input should be a valid integer"),
        ('{"step": 2, "lr": "high"}', "line 2 .* lr: input should be a valid number"),
    ],
)
def test_an_unreadable_line_is_named(run_folder: Path, line: str, reason: str) -> None:
    (run_folder / "metrics.jsonl").write_text(f'{{"step": 1, "train/loss": 2.0}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(UserError, match=f"metrics.jsonl, {reason}"):
        write_report(run_folder)


def test_a_damaged_file_is_named(run_folder: Path) -> None:
    (run_folder / "config.toml").write_text("[model\n")
    with pytest.raises(UserError, match=r"config\.toml is not valid TOML"):
        write_report(run_folder)
    (run_folder / "config.toml").write_text("machine = 3\n" + CONFIG)
    with pytest.raises(UserError, match=r"config\.toml: machine = 3 is not a section"):
        write_report(run_folder)
    (run_folder / "config.toml").write_text(CONFIG)
    (run_folder / "machine.json").write_text("{")
    with pytest.raises(UserError, match=r"machine\.json is damaged"):
        write_report(run_folder)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no run folder"):
        write_report(tmp_path / "absent")
    with pytest.raises(UserError, match="is not a run folder"):
        write_report(tmp_path)


def test_a_full_disk_leaves_the_report_before(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = write_report(run_folder)
    before = report.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    (run_folder / "machine.json").unlink()
    with pytest.raises(UserError, match=r"cannot write .*report\.html: No space left on device"):
        write_report(run_folder)
    assert report.read_bytes() == before
    assert not list(run_folder.glob("*.tmp")) + list(run_folder.glob(".*"))


@pytest.fixture
def other_run(run_folder: Path) -> Path:
    """Another run, with other settings, not finished, without samples."""
    folder = run_folder.parent / "other"
    folder.mkdir()
    (folder / "config.toml").write_text(CONFIG.replace("n_layer = 4", "n_layer = 6\nn_kv_head = 2"))
    write_lines(folder / "metrics.jsonl", [training(1), validation(1, 3.5)])
    return folder


def cells_after(page: Page, name: str) -> list[str]:
    """The cells of the table row that `name` stands at the head of."""
    row = page.html.split(f">{name}</th>")[1].split("</tr>")[0]
    return re.findall("<td[^>]*>(.*?)</td>", row)


def test_a_comparison_shows_figures_and_differences(run_folder: Path, other_run: Path, tmp_path: Path) -> None:
    out = write_comparison([run_folder, other_run], tmp_path / "compared.html")
    page = Page(out)
    assert out == tmp_path / "compared.html"
    assert cells_after(page, "model.n_layer") == ["4", "6"]
    assert cells_after(page, "model.n_kv_head") == ["–", "2"]
    assert "training.max_steps" not in page.text
    assert "other (not finished)" in page.text
    assert "All read the same text with the same tokenizer." in page.text
    assert page.data["runs"] == ["tiny", "other"]
    assert {curve["run"] for curve in page.data["charts"][0]["curves"]} == {0, 1}


def test_settings_that_the_tokenizer_ignores_are_not_shown(run_folder: Path, other_run: Path, tmp_path: Path) -> None:
    fields = 'vocab_size = 512\npattern = "cl100k"\nspecial_tokens = ["<|user|>"]\n'
    for folder, name in ((run_folder, "char"), (other_run, "bpe")):
        config = folder / "config.toml"
        config.write_text(config.read_text().replace('name = "char"\n', f'name = "{name}"\n{fields}'))
    by_characters, by_merges = Page(write_report(run_folder)), Page(write_report(other_run))
    assert ("512" in by_characters.text, "cl100k" in by_characters.text) == (False, False)
    assert ("512" in by_merges.text, "cl100k" in by_merges.text) == (True, True)
    assert "<|user|>" in by_characters.text
    compared = Page(write_comparison([run_folder, other_run], tmp_path / "compared.html"))
    assert cells_after(compared, "tokenizer.vocab_size") == ["–", "512"]
    config.write_text(config.read_text().replace('name = "bpe"', 'name = "gpt2"'))
    assert "<|user|>" not in Page(write_report(other_run)).text


def test_a_comparison_warns_of_losses_that_cannot_be_compared(
    run_folder: Path, other_run: Path, tmp_path: Path
) -> None:
    (other_run / "config.toml").write_text(CONFIG.replace("char", "bpe"))
    text = Page(write_comparison([run_folder, other_run], tmp_path / "compared.html")).text
    assert "compare bits per byte" in text


def test_a_comparison_knows_a_text_by_its_digest(run_folder: Path, other_run: Path, tmp_path: Path) -> None:
    (other_run / "config.toml").write_text(CONFIG + '[data]\nsource = "elsewhere"\n')
    for digest, said in (("a", "the same text"), ("b", "different texts")):
        (run_folder / "data.json").write_text(json.dumps({"text_sha256": "a"}))
        (other_run / "data.json").write_text(json.dumps({"text_sha256": digest}))
        assert said in Page(write_comparison([run_folder, other_run], tmp_path / "compared.html")).text


def test_runs_of_the_same_name_are_told_apart(run_folder: Path, tmp_path: Path) -> None:
    twin = tmp_path / "elsewhere" / "tiny"
    twin.mkdir(parents=True)
    (twin / "config.toml").write_text(CONFIG)
    page = Page(write_comparison([run_folder, twin], tmp_path / "compared.html"))
    assert page.data["runs"] == [str(run_folder), str(twin)]
    assert "Their configs are the same." in page.text


def test_nothing_to_compare_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name at least one run"):
        write_comparison([], tmp_path / "compared.html")


def test_a_report_does_not_need_torch() -> None:
    code = "import sys, glassgpt.report.run_page; print({'torch'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_a_long_runs_page_is_small(run_folder: Path) -> None:
    """Every measurement differs, as in a real run; without thinning the page would have 4 MB."""
    noise = np.random.default_rng(0).normal(1, 0.1, size=(20_000, 3))
    lines = (
        training(step, **{"train/loss": a, "grad_norm": b, "tokens_per_second": 9000 * c})
        for step, (a, b, c) in enumerate(noise.tolist(), start=1)
    )
    write_lines(run_folder / "metrics.jsonl", list(lines))
    assert write_report(run_folder).stat().st_size < 300_000


def test_the_loss_of_a_model_that_knows_nothing_is_a_line(run_folder: Path, other_run: Path, tmp_path: Path) -> None:
    def lines(*folders: Path) -> list[dict[str, Any]]:
        return Page(write_comparison(folders, tmp_path / "compared.html")).data["charts"][0]["lines"]

    assert lines(run_folder) == []  # its config does not say how many tokens there are
    for folder in (run_folder, other_run):
        (folder / "config.toml").write_text(CONFIG.replace("[model]", "[model]\nvocab_size = 65"))
    assert lines(run_folder, other_run) == [
        {"value": pytest.approx(4.1744, abs=1e-4), "label": "all 65 tokens equally likely: 4.174"}
    ]
    (other_run / "config.toml").write_text(CONFIG.replace("[model]", "[model]\nvocab_size = 512"))
    assert lines(run_folder, other_run) == []


def cells(line: str) -> list[str]:
    return re.sub(r"<[^>]*>", " ", line).split()


def in_a_browser(page: Path, profile: Path) -> str:
    """The HTML of the page after its script has run."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("needs Chromium or Chrome")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    command = [browser, *flags, "--virtual-time-budget=3000", "--dump-dom", page.resolve().as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_many_runs_have_one_legend_with_a_row_each(run_folder: Path, other_run: Path, tmp_path: Path) -> None:
    """Each chart had a legend of its own, of two items for each run, without names in the small charts."""
    more = [run_folder.parent / f"run-{number}" for number in range(12)]
    for folder in more:
        shutil.copytree(run_folder, folder)
    write_lines(run_folder / "metrics.jsonl", [training(1), {"step": 2, "skipped": "gradient"}, validation(2, 3.25)])
    html = in_a_browser(write_comparison([run_folder, other_run, *more], tmp_path / "many.html"), tmp_path / "profile")
    legend = html.split('<table id="runs">')[1].split("</table>")[0]
    head, *rows = [cells(row) for row in legend.split("</tr>")[:-1]]
    assert " ".join(head).startswith("all runs Training loss Validation loss Learning rate")
    assert rows[:2] == [
        ["tiny", "2,", "1", "skipped", "3.25", "0.001", "0.5", "9,000"],
        ["other", "2", "3.5", "0.001", "0.5", "9,000"],
    ]
    assert [row[0] for row in rows[2:]] == [folder.name for folder in more]
    assert "u-legend" not in html.split("<main>")[1].split("</main>")[0]
    swatches = re.findall('<span class="swatch" data-run="([0-9]+)" style="([^"]*)"', html.split("<main>")[1])
    assert len({style for _, style in swatches}) == 14  # every run has a colour or a stroke of its own


def test_a_cell_of_a_wide_table_names_its_column(run_folder: Path, other_run: Path, tmp_path: Path) -> None:
    """A narrow screen shows each row as a card: the table scrolled sideways, and hid the bits per byte."""
    html = write_comparison([run_folder, other_run], tmp_path / "compared.html").read_text(encoding="utf-8")
    assert '<td data-column="Bits per byte">3.1561</td>' in html
    assert '<td data-column="tiny">4</td><td data-column="other">6</td>' in html


def test_a_browser_draws_every_chart_and_shows_the_last_values(run_folder: Path, tmp_path: Path) -> None:
    html = in_a_browser(write_report(run_folder), tmp_path / "profile")
    legends = [cells(part.partition("</table>")[0]) for part in html.split('<table class="u-legend')[1:]]
    assert len(legends) == 4
    *_, training_label, training_loss, validation_label, validation_loss = legends[0]
    assert (training_label, validation_label, validation_loss) == ("training", "validation", "2.1875")
    assert float(training_loss) == pytest.approx(4.0 / 400, rel=0.02)
    assert [legend[-1] for legend in legends[1:]] == ["0.001", "0.5", "9,000"]
    assert html.count("<canvas") == 4


def test_a_failed_check_comes_first_with_what_to_do(run_folder: Path) -> None:
    fields = {"expected": "1", "reason": "because", "figure": "2"}
    findings = [
        {"name": "fine", "status": "passed", "remedy": "", **fields},
        {"name": "broken", "status": "failed", "remedy": "<mend> it", **fields},
    ]
    (run_folder / "doctor.json").write_text(json.dumps({"normal": "No.", "step": 9, "findings": findings}))
    page = Page(write_report(run_folder))
    assert page.text.index("broken") < page.text.index("fine")
    assert "To do: <mend> it" in page.text
    assert page.text.count("To do:") == 1
