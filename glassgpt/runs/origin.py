"""origin.json: where the initial weights of a run came from, if they were not random."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from glassgpt.config import record_from_dict
from glassgpt.errors import UserError
from glassgpt.files import check_regular, read_json, write_text

FORMAT = 1
ORIGIN = "origin.json"


@dataclass(frozen=True)
class Origin:
    """Source of the initial weights (a repository, a folder or another run), and the files read from it."""

    source: str
    revision: str  # the commit of a repository, the step of a run; else empty
    files: dict[str, str]  # file name → sha256
    tokenizer_sha256: str

    def save(self, path: Path) -> None:
        """Writes origin.json."""
        write_text(path, json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")


def load_origin(path: Path) -> Origin:
    """Reads origin.json. Raises UserError if it is missing, damaged or of another version."""
    fields = read_json(path)
    found = fields.pop("format", None)
    if found != FORMAT:
        raise UserError(f"{path} has format {found}, this version of glassgpt reads format {FORMAT}")
    return record_from_dict(Origin, fields, path)


def sha256_of_file(path: Path) -> str:
    """The sha256 of a file's bytes."""
    check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
