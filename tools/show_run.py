"""Prints what came of a finished run: its folder, the final validation loss, the report. `make demo` ends with it."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def show(folder: Path) -> None:
    """Reads the last line of the run's metrics, which holds the loss on the whole validation split."""
    final = json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    bits = final["val/bits_per_byte"]
    print(f"run              {folder}")
    print(f"steps            {final['step']:,}")
    print(f"validation loss  {final['val/loss']:.3f} nats per token, {bits:.3f} bits per byte")
    print(f"report           {folder / 'report.html'}")
    print("sample")


if __name__ == "__main__":
    show(Path(sys.argv[1]))
