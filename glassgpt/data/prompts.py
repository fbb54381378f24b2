"""Reads prompts from a file or from stdin."""

from __future__ import annotations

import json
from pathlib import Path

from glassgpt.data.text_files import read_file, read_stdin
from glassgpt.errors import UserError

FIELD = "prompt"


def read_prompts(path: Path, *, keep_blank: bool = False) -> list[str]:
    """The prompts of a file, or of stdin if the path is "-": one a line.

    Blank lines are left out. With `keep_blank` they are empty prompts, so that line n of an answer is that of line n.
    In a file whose name ends with .jsonl each line is a JSON object with the field "prompt", so that a prompt may have
    several lines. Raises UserError, with file and line, for a line that is none, and if there is no prompt.
    """
    text = read_stdin() if str(path) == "-" else read_file(path)
    whole = enumerate((line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")), 1)
    lines = [(number, line) for number, line in whole if line.strip() or keep_blank]
    if path.suffix.lower() == ".jsonl":
        prompts = [_prompt_of(line, f"{path}, line {number}") if line.strip() else "" for number, line in lines]
    else:
        prompts = [line if line.strip() else "" for _, line in lines]
    if not any(prompts):
        raise UserError(f"{path} has no prompt: write one a line")
    return prompts


def _prompt_of(line: str, where: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not isinstance(record.get(FIELD), str):
        raise UserError(f'{where} is not a JSON object with a text "{FIELD}", like {{"{FIELD}": "ROMEO:"}}')
    return str(record[FIELD])
