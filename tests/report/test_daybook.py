"""The log of all runs: what it lists, in which order, and what people noted."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from pathlib import Path

import pytest

from glassgpt.errors import UserError
from glassgpt.report.daybook import add_note, list_entries, parse_day, read_notes, within
from glassgpt.report.daybook_page import write_daybook

CONFIG = 'format = 1\n[model]\narchitecture = "gpt2"\nn_layer = 2\nn_embd = 16\nblock_size = 8\n'


def make_run(runs: Path, name: str, begun: str, lines: list[dict[str, object]]) -> Path:
    folder = runs / name
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(CONFIG)
    (folder / "machine.json").write_text(json.dumps({"parameters": 1234, "begun": begun}))
    (folder / "data.json").write_text(json.dumps({"name": "a text"}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    runs = tmp_path / "runs"
    step = {"step": 1, "train/loss": 3.0, "seconds": 4.0, "tokens_seen": 8}
    check = {"step": 1, "val/loss": 2.5, "val/bits_per_byte": 3.5, "val/seconds": 1.0}
    final = {"step": 2, "final": True, "train/loss": 2.0, "val/loss": 2.25, "val/bits_per_byte": 3.0,
             "best/val/loss": 2.125, "seconds": 10.0, "validation_seconds": 5.0}  # fmt: skip
    make_run(runs, "first", "2026-03-01T10:00:00+00:00", [check, step, final])
    make_run(runs, "second", "2026-03-02T10:00:00+00:00", [check, step])
    make_run(runs, "third", "2026-03-03T10:00:00+00:00", [])
    return runs


def test_the_newest_run_comes_first_with_its_figures(runs: Path) -> None:
    third, second, first = list_entries(runs)
    assert (first.run, first.model, first.data, first.parameters) == ("first", "gpt2 2 x 16, block 8", "a text", 1234)
    assert (first.steps, first.finished, first.train_loss, first.val_loss) == (2, True, 2.0, 2.25)
    assert (first.best_val_loss, first.bits_per_byte, first.seconds, first.validation_share) == (2.125, 3.0, 10.0, 0.5)
    assert (second.steps, second.finished, second.val_loss, second.validation_share) == (1, False, 2.5, 0.25)
    assert (third.run, third.steps, third.val_loss, third.seconds) == ("third", None, None, None)


def test_a_foreign_folder_is_no_run(runs: Path) -> None:
    (runs / "site").mkdir()
    (runs / "site" / "config.toml").write_text('baseURL = "https://example.org"\n[params]\nmodel = 1\n')
    (runs / "recipe").mkdir()
    (runs / "recipe" / "config.toml").write_text(CONFIG)
    assert [entry.run for entry in list_entries(runs)] == ["third", "second", "first"]


def test_notes_written_at_once_are_all_kept(runs: Path) -> None:
    texts = [f"note {number}" for number in range(40)]
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda text: add_note(runs / "first", text), texts))
    assert sorted(note.text for note in read_notes(runs / "first")) == sorted(texts)


def test_it_sorts_by_any_figure_and_puts_runs_without_it_last(runs: Path) -> None:
    assert [entry.run for entry in list_entries(runs, "val_loss")] == ["first", "second", "third"]
    assert [entry.run for entry in list_entries(runs, "val_loss", reverse=True)] == ["second", "first", "third"]
    assert [entry.run for entry in list_entries(runs, "begun", reverse=True)] == ["first", "second", "third"]
    with pytest.raises(UserError, match="did you mean 'val_loss'"):
        list_entries(runs, "val_los")


def test_a_damaged_run_is_listed_and_hides_no_other(runs: Path) -> None:
    (runs / "second" / "metrics.jsonl").write_text("no JSON\nat all\n")
    problems = {entry.run: entry.problem for entry in list_entries(runs)}
    assert "metrics.jsonl, line 1" in str(problems.pop("second"))
    assert problems == {"first": None, "third": None}


def test_notes_are_kept_in_order_whole_and_with_their_time(runs: Path) -> None:
    add_note(runs / "first", "  two\nlines\u2028“é” ", datetime.fromisoformat("2026-03-05T08:00:00+00:00"))
    add_note(runs / "first", "later", datetime.fromisoformat("2026-03-06T08:00:00+00:00"))
    assert [note.text for note in read_notes(runs / "first")] == ["two\nlines\u2028“é”", "later"]
    assert [note.time.isoformat()[:10] for note in list_entries(runs)[2].notes] == ["2026-03-05", "2026-03-06"]
    with pytest.raises(UserError, match="the note is empty"):
        add_note(runs / "first", " \n")


def test_a_damaged_note_is_named_and_none_is_lost(runs: Path) -> None:
    notes = runs / "first" / "notes.jsonl"
    notes.write_text('{"time": "2026-03-05T08:00:00+00:00", "text": "one"}\n{"time": "yesterday", "text": "two"}\n')
    before = notes.read_bytes()
    with pytest.raises(UserError, match=r"notes.jsonl, line 2 is not a note"):
        add_note(runs / "first", "three")
    assert notes.read_bytes() == before


def test_a_period_has_the_runs_that_were_begun_or_noted_on_in_it(runs: Path) -> None:
    add_note(runs / "first", "again", datetime.fromisoformat("2026-03-03T12:00:00+00:00"))
    entries = list_entries(runs)
    days = date(2026, 3, 2), date(2026, 3, 3)
    assert [entry.run for entry in within(entries, days[1], None)] == ["first", "third"]
    assert [entry.run for entry in within(entries, None, days[0])] == ["first", "second"]
    assert [entry.run for entry in within(entries, *days)] == ["first", "second", "third"]
    assert within(entries, date(2026, 4, 1), None) == []
    with pytest.raises(UserError, match="--since 'today' is not a date"):
        parse_day("today", "--since")


def test_the_page_tells_what_happened_in_the_order_of_time(runs: Path, tmp_path: Path) -> None:
    add_note(runs / "first", "<b>looks</b> good", datetime.fromisoformat("2026-03-02T12:00:00+00:00"))
    (runs / "third" / "metrics.jsonl").write_text("no JSON\nat all\n")
    page = write_daybook(within(list_entries(runs), None, None), None, None, tmp_path / "log.html").read_text()
    told = [
        "Training log, 2026-03-01 to ", "3 runs, 1 note",
        "Sunday, 2026-03-01", "<strong>first</strong> begun",
        "Monday, 2026-03-02", "<strong>second</strong> begun", "&lt;b&gt;looks&lt;/b&gt; good",
        "metrics.jsonl, line 1", "Figures",
    ]  # fmt: skip
    places = [page.index(text) for text in told]
    assert places == sorted(places)
