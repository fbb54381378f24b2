"""Exports a run to a folder that other programs can load: `export_hf`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from glassgpt.config import dump_toml, strict_arguments
from glassgpt.errors import UserError, option, unknown
from glassgpt.files import replacing_folder, user_path
from glassgpt.interop.huggingface_export import write_hf_folder
from glassgpt.interop.layout import Layout
from glassgpt.interop.layouts import layout_of
from glassgpt.interop.model_card import model_card
from glassgpt.interop.tokenizer_import import OUR_TOKENIZER
from glassgpt.runs.config import Sections, config_sections
from glassgpt.runs.origin import ORIGIN, load_origin
from glassgpt.runs.run import Run, open_run
from glassgpt.training.metrics import final_record


@strict_arguments
def export_hf(
    run: Run | str | Path, folder: str | Path, *, checkpoint: str | int = "best", overwrite: bool = False
) -> Path:
    """Writes a folder that `transformers` loads without our code. Ids, logits and greedy text are equal.

    Returns `folder`. The weights have the dtypes of the checkpoint, which are 16 bits for an import of such files.

    `checkpoint` selects the weights of a run given by name or path. Raises UserError for an architecture or tokenizer
    without an exact equivalent in `transformers`, for a run opened in 16 bits, and for a folder that is in use.
    """
    folder = user_path(folder)
    _check_free(folder, overwrite)
    opened = run if isinstance(run, Run) else open_run(run, checkpoint=checkpoint, device="cpu")
    opened.check_plain_model()
    if (dtype := opened.runtime.product_dtype) != torch.float32:
        raise UserError(f"{opened.folder} is open with its weights rounded to {dtype}: export it by its name instead")
    model = opened.stored_model()
    try:
        with replacing_folder(folder) as temporary:
            write_hf_folder(temporary, model, opened.tokenizer, _card(opened, layout_of(model), folder.absolute().name))
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from None
    return folder


EXPORTERS: Mapping[str, Callable[..., Path]] = {"hf": export_hf}


def find_exporter(name: str) -> Callable[..., Path]:
    """The function that writes a format. Raises UserError for an unknown format."""
    if name not in EXPORTERS:
        raise unknown("format", name, EXPORTERS)
    return EXPORTERS[name]


def _check_free(folder: Path, overwrite: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not all((folder / name).exists() for name in ("config.json", OUR_TOKENIZER)):
        raise UserError(f"{folder} exists and is not an export: choose another folder; nothing was changed")
    if not overwrite:
        raise UserError(f"{folder} exists: replace it with {option(overwrite=True)}, or choose another folder")


def _card(run: Run, layout: Layout, name: str) -> str:
    facts: dict[str, list[str]] = {}
    sections = config_sections(run.config)
    if (run.folder / ORIGIN).exists():
        origin = load_origin(run.folder / ORIGIN)
        facts["First weights"] = [f"{_public(origin.source)} {origin.revision}".strip()]
    if run.imported:
        sections = {name: sections[name] for name in ("model", "tokenizer")}
    else:
        data = run.manifest
        sections["data"]["source"] = data.name
        facts["Data"] = [
            f"{data.name} ({data.train.tokens:,} tokens for training, {data.val.tokens:,} for validation)",
            f"SHA-256 of the text: {data.text_sha256}",
        ]
        facts["Evaluation"] = _results(run)
    settings = dump_toml(_without_paths(sections))
    return model_card(name, layout, run.n_parameters, facts, settings)


def _results(run: Run) -> list[str]:
    """What was measured with exactly these weights."""
    lines = [f"step {run.step}, {run.checkpoint.number('tokens_seen'):,.0f} tokens seen"]
    final, figure = final_record(run.metrics), run.checkpoint.best.figure
    if final is not None and final.get("best/step") == run.step and f"best/{figure}" in final:
        value, on = final[f"best/{figure}"], "the whole validation split"
    else:
        value = run.checkpoint.score
        on = f"{min(run.config.evaluation.tokens, run.manifest.val.tokens):,} tokens"
    if value is not None:
        loss = f"validation loss {value:.4f} nats per token, on {on}"
        lines.append(loss if figure == "val/loss" else f"{figure} {value:.4f}")
    return lines


def _without_paths(sections: Sections) -> Sections:
    return {name: {field: _public(value) for field, value in fields.items()} for name, fields in sections.items()}


def _public(value: Any) -> Any:
    """Shortens an absolute path to its last part, because local paths are private."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
