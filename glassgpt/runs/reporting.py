"""The report of a run, with what is inside its last checkpoint."""

from __future__ import annotations

import contextlib
from pathlib import Path

from glassgpt.errors import UserError, is_out_of_memory
from glassgpt.models import find_architecture
from glassgpt.report.counting import count_run
from glassgpt.report.figures import count, parameters
from glassgpt.report.inside import INSIDE, inside_html, missing_html, pair_html
from glassgpt.report.run_page import write_report
from glassgpt.report.run_record import read_record
from glassgpt.runs.run import open_run

MOST_PARAMETERS = 500_000_000  # a report takes seconds and little memory; a larger model has glassgpt look


def report_run(folder: Path) -> Path:
    """Writes `report.html` into the run folder and returns its path.

    It shows the last sample in the model of the last checkpoint. If there is no checkpoint that can be read, a sentence
    says so, and the rest of the report is there. Raises UserError as `write_report` does.
    """
    record = read_record(folder)
    if record.pretrained and record.train:
        with contextlib.suppress(UserError):  # without the tokens of its text, the curves have no lines of counting
            count_run(folder)
    return write_report(folder, inside=_inside_html(folder))


def _inside_html(folder: Path) -> str:
    """The sections on the model; empty if the run has no sample."""
    record = read_record(folder)
    if not record.samples:
        return ""
    if (size := parameters(record) or 0) > MOST_PARAMETERS:
        return missing_html(INSIDE, f"A report does not open a model of {count(size)} parameters: use glassgpt look.")
    try:
        run = open_run(folder, checkpoint="last", device="cpu")
        if find_architecture(run.config.architecture).kind == "encoder-decoder":
            return pair_html(run.look_pair())
        return inside_html(run.look(), run.sample_ids())
    except (UserError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        return missing_html(INSIDE, f"The model is not shown: {error}")
