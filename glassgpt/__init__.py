"""GlassGPT: a GPT you can see through.

    import glassgpt as gg

    run = gg.train(recipe="char-tiny", text=open("my.txt").read())
    run = gg.load("runs/char-tiny")
    print(run.generate("O Romeo"))

The public names are imported lazily, so that `import glassgpt` does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from glassgpt.errors import UserError

if TYPE_CHECKING:
    from glassgpt.course.climb import climb
    from glassgpt.inspection.capture import capture, gradients
    from glassgpt.inspection.edit import edit
    from glassgpt.inspection.trace import trace
    from glassgpt.interop.huggingface import load_hf
    from glassgpt.runs.exporting import export_hf
    from glassgpt.runs.importing import import_hf
    from glassgpt.runs.listener import Listener
    from glassgpt.runs.run import Run, load
    from glassgpt.runs.train import train

__version__ = "0.1.0"

_MODULES = {
    "Listener": "glassgpt.runs.listener",
    "Run": "glassgpt.runs.run",
    "capture": "glassgpt.inspection.capture",
    "climb": "glassgpt.course.climb",
    "edit": "glassgpt.inspection.edit",
    "export_hf": "glassgpt.runs.exporting",
    "gradients": "glassgpt.inspection.capture",
    "import_hf": "glassgpt.runs.importing",
    "load": "glassgpt.runs.run",
    "load_hf": "glassgpt.interop.huggingface",
    "trace": "glassgpt.inspection.trace",
    "train": "glassgpt.runs.train",
}

__all__ = [
    "Listener",
    "Run",
    "UserError",
    "__version__",
    "capture",
    "climb",
    "edit",
    "export_hf",
    "gradients",
    "import_hf",
    "load",
    "load_hf",
    "trace",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'glassgpt' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
