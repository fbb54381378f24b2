"""Some sections of the ladder with a window of 8 and with one of 64, at the same number of characters in each step.

The trainings of the first seed are kept as runs: runs/window-8/s08-residual, runs/window-64/s08-residual and so on.
"""

from __future__ import annotations

import statistics

from lab import open_text, row, text_parser

import glassgpt as gg
from glassgpt.course.climb import LadderTraining, run_name
from glassgpt.models.ladder import SECTIONS

CHARACTERS = 256  # in a step: 32 rows of 8, or 4 rows of 64


def main() -> None:
    """Prints the table: the mean of the seeds, and half of the range between them."""
    parser = text_parser(__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sections", type=int, nargs="+", default=[1, 3, 4, 7, 8])
    options = parser.parse_args()
    dataset = open_text(options.data)
    row("validation loss", "window 8", "±", "window 64", "±")
    for number in options.sections:
        section = SECTIONS[number - 1]
        figures = []
        for window in (8, 64):
            training = LadderTraining(steps=options.steps, block_size=window, batch_rows=CHARACTERS // window)
            losses = []
            for seed in range(options.seeds):
                run = f"runs/window-{window}/{run_name(section, seed)}" if seed == 0 else None
                _, result = gg.climb(section, seed, dataset, training, run=run, overwrite=True)
                losses.append(result.val_loss)
            figures += [statistics.fmean(losses), (max(losses) - min(losses)) / 2]
        row(f"{number} {section.name}", *figures)


if __name__ == "__main__":
    main()
