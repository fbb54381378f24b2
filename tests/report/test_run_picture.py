"""The picture of a run shows its losses and its samples, and is valid SVG whatever the model wrote."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

from glassgpt.report.run_picture import LETTERS, LINES, card, draw_run
from glassgpt.report.run_record import RunRecord

SVG = "{http://www.w3.org/2000/svg}"


def record(samples: list[dict[str, Any]], steps: int = 2000) -> RunRecord:
    train = [{"step": step, "train/loss": 1 + 3 / step} for step in range(1, steps + 1)]
    final = {"step": steps, "val/loss": 1.25, "final": True}
    return RunRecord(
        "name", {}, {"parameters": 1234}, {"name": "a text"}, train, [], [], final if steps else None, samples
    )


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_it_has_both_losses_and_early_samples() -> None:
    samples = [{"step": step, "text": f"wrote {step}"} for step in range(0, 2001, 250)]
    svg = draw_run(record(samples))
    found = texts(svg)
    assert found[0] == "name: 1,234 parameters, trained on a text"
    assert [text for text in found if text.startswith("step ")] == ["step 0", "step 250", "step 1,000", "step 2,000"]
    assert {"wrote 0", "wrote 2000", "1.250"} <= set(found)
    *_, training, validation = ElementTree.fromstring(svg).iter(f"{SVG}polyline")
    assert len(training.attrib["points"].split()) <= 400
    assert len(validation.attrib["points"].split()) == 1
    assert len(svg) < 20_000


def test_what_the_model_wrote_is_shown_within_its_column() -> None:
    hostile = "</text><script>\x00\x1b[31m&amp; " + "long " * 100 + "\n" * 20
    svg = draw_run(record([{"step": 0, "prompt": "O", "text": hostile}]))
    wrote = texts(svg)[texts(svg).index("step 0") + 1 :]
    assert len(wrote) == LINES
    assert wrote[0].startswith("O</text><script>��[31m&amp;")
    assert all(len(line) <= LETTERS for line in wrote)
    assert wrote[-1] == "…"


def test_a_run_without_figures_has_a_picture_too() -> None:
    assert texts(draw_run(record([], steps=0)))
    assert "&lt;b&gt;" in card("<b>", ["<b>"], "")
