"""What a run writes into its folder while it trains, on whatever number of ranks."""

from __future__ import annotations

from pathlib import Path

from glassgpt.ranks import Ranks
from glassgpt.training.tracking import JsonLines, Record, read_lines


class RunLog:
    """metrics.jsonl and samples.jsonl of a run while it trains; on ranks other than the first, nothing."""

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        names = ("metrics.jsonl", "samples.jsonl") if ranks.first else ()
        self._files = {name: JsonLines(folder / name) for name in names}

    def add(self, record: Record, file: str = "metrics.jsonl") -> None:
        """A line of figures, or of another file."""
        if file in self._files:
            self._files[file].append(record)

    def train_losses(self, count: int) -> list[float]:
        """Those of the last `count` steps that were applied; fewer where there are not so many."""
        lines = read_lines(self._files["metrics.jsonl"].path) if self._files else []
        steps = [line for line in lines if "train/loss" in line and "skipped" not in line and not line.get("final")]
        return [line["train/loss"] for line in steps[-count:]]

    def sync(self) -> None:
        """Forces all lines onto the disk: a checkpoint never knows more than the figures beside it."""
        for file in self._files.values():
            file.sync()

    def close(self) -> None:
        """Never fails: what the disk refused, adding has said."""
        for file in self._files.values():
            file.close()
