"""OpenAI's vocabularies, through tiktoken."""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import tiktoken

from glassgpt.errors import UserError, unknown
from glassgpt.tokenizers.base import load_kind, save_json
from glassgpt.tokenizers.ranked import RankedTokenizer

_SOURCE = "https://openaipublic.blob.core.windows.net/"
_FILES = {  # of each vocabulary: its files, which tiktoken caches by their address, with their SHA-256
    "gpt2": {
        "gpt-2/encodings/main/vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        "gpt-2/encodings/main/encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    },
    "cl100k_base": {
        "encodings/cl100k_base.tiktoken": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
    },
    "o200k_base": {"encodings/o200k_base.tiktoken": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"},
}
PRETRAINED = tuple(_FILES)


class PretrainedTokenizer(RankedTokenizer):
    """A published vocabulary. Its saved file contains the ranks, so that it loads without network or cache."""

    def __init__(self, encoding: tiktoken.Encoding, special_tokens: dict[str, int]) -> None:
        tokens = {id: token for token, id in encoding._mergeable_ranks.items()}
        tokens |= {id: name.encode() for name, id in special_tokens.items()}
        super().__init__(encoding.name, encoding, tokens, special_tokens)

    @classmethod
    def from_name(cls, name: str) -> PretrainedTokenizer:
        """The vocabulary `name`, from tiktoken's cache; the first time, it is downloaded."""
        if name not in PRETRAINED:
            raise unknown("vocabulary", name, PRETRAINED)
        try:
            encoding = tiktoken.get_encoding(name)
        except (OSError, ValueError) as error:
            reason = textwrap.shorten(str(error), 100)
            raise UserError(
                f"cannot get the vocabulary '{name}' ({reason}): connect to the network once, or set "
                "TIKTOKEN_CACHE_DIR to a folder in which tiktoken has cached it"
            ) from None
        return cls(encoding, dict(encoding._special_tokens))

    @property
    def ranks(self) -> dict[bytes, int]:
        """The id of every ordinary token, which is also its merge priority: the lowest first."""
        return self._encoding._mergeable_ranks

    @property
    def pattern(self) -> str:
        """The regular expression that splits text before merging."""
        return self._encoding._pat_str

    def to_dict(self) -> dict[str, Any]:
        return {
            "type": "tiktoken",
            "name": self.name,
            "pattern": self.pattern,
            "special_tokens": self.special_tokens,
            "ranks": {base64.b64encode(token).decode("ascii"): id for token, id in self.ranks.items()},
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PretrainedTokenizer:
        ranks = {base64.b64decode(token, validate=True): id for token, id in data["ranks"].items()}
        special_tokens = dict(data["special_tokens"])
        if len(set(ranks.values())) < len(ranks) or set(ranks.values()) & set(special_tokens.values()):
            raise ValueError("two tokens have the same id")
        if any(bytes([byte]) not in ranks for byte in range(256)):
            raise ValueError("the ranks lack one of the 256 bytes")
        encoding = tiktoken.Encoding(
            data["name"], pat_str=data["pattern"], mergeable_ranks=ranks, special_tokens=special_tokens
        )
        return cls(encoding, special_tokens)

    @classmethod
    def load(cls, path: Path | str) -> PretrainedTokenizer:
        """The tokenizer that `save` wrote. Raises UserError if the file is missing, damaged or of another type."""
        return load_kind("tiktoken", cls.from_dict, path)

    def save(self, path: Path | str) -> None:
        save_json(self.to_dict(), path)


def is_at_hand(name: str) -> bool:
    """Whether `from_name` needs no network for this vocabulary: tiktoken's cache has its files, and they are whole."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder == "":  # tiktoken then keeps nothing
        return False
    cache = Path(folder) if folder is not None else Path(tempfile.gettempdir(), "data-gym-cache")
    for address, digest in _FILES[name].items():
        file = cache / hashlib.sha1((_SOURCE + address).encode()).hexdigest()
        try:
            if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
                return False  # tiktoken would download it again
        except OSError:
            return False
    return True
