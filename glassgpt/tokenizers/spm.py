"""SentencePiece models, such as those of Llama 2 and T5; needs `pip install 'glassgpt[sentencepiece]'`."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glassgpt.errors import UserError
from glassgpt.tokenizers.base import (
    AllowedSpecial,
    check_special_names,
    damaged,
    id_error,
    load_kind,
    plain_id,
    plain_ids,
    read_tokenizer_file,
    save_json,
    split_special,
    to_utf8,
)

SPACE = "▁"  # stands for a space in a piece


class SentencePieceTokenizer:
    """A trained model. Its normalisation (often of repeated spaces and compatibility characters) is not reversible.

    Its control symbols (<s>, </s>, …) are the special tokens, with those that were added to it later.
    """

    name = "sentencepiece"
    safe_cut = None  # it merges across spaces, and treats the start of a text in its own way

    def __init__(
        self, model: bytes, added_tokens: Mapping[str, int] | None = None, bos_token: str | None = None
    ) -> None:
        """`model` is the contents of a .model file. `added_tokens` are special tokens that follow its own pieces.

        T5 has a hundred of these, for example. Raises ValueError if it is not a SentencePiece model, and UserError for
        special tokens that do not fit it.
        """
        self.model = model
        self._processor = _processor(model)
        ids = range(self._processor.get_piece_size())
        pieces = [self._processor.id_to_piece(id) for id in ids]
        self.special_tokens = {pieces[id]: id for id in ids if self._processor.is_control(id)}
        self._pieces = {id: self._piece_bytes(id, piece) for id, piece in enumerate(pieces)}
        self.added_tokens = dict(added_tokens or {})
        for name, id in self.added_tokens.items():
            check_special_names([name])
            if not isinstance(id, int) or id in self._pieces or id < 0 or name in self.special_tokens:
                raise UserError(
                    f"special token {name!r} cannot be added with id {id!r}: the model has one or the other"
                )
            self.special_tokens[name] = id
            self._pieces[id] = name.encode()
        self.bos_token = bos_token
        if bos_token is not None and bos_token not in self.special_tokens:
            raise UserError(f"bos_token is {bos_token!r}, which is none of the model's special tokens")
        self._special_ids = frozenset(self.special_tokens.values())
        self._n_ids = max(self._pieces) + 1
        # Most models add a space before the text, which decoding removes.
        self._adds_space = self._processor.encode("a", out_type=str)[0].startswith(SPACE)

    def _piece_bytes(self, id: int, piece: str) -> bytes:
        if self._processor.is_byte(id):  # "<0x0A>"
            return bytes([int(piece[3:5], 16)])
        if self._processor.is_unknown(id):
            return "\ufffd".encode()
        return piece.replace(SPACE, " ").encode("utf-8")

    @classmethod
    def from_model(cls, path: Path | str) -> SentencePieceTokenizer:
        """The tokenizer of a .model file."""
        try:
            return cls(read_tokenizer_file(Path(path)))
        except ValueError as error:
            raise damaged(path, str(error)) from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.vocab_size:,} ids)"

    @property
    def vocab_size(self) -> int:
        return self._n_ids

    def encode(self, text: str, *, allowed_special: AllowedSpecial = frozenset()) -> list[int]:
        """The ids of `text`; see `Tokenizer.encode`. Each part between special tokens is encoded independently."""
        to_utf8(text)
        ids: list[int] = []
        for piece, special in split_special(text, self.special_tokens, allowed_special):
            if special:
                ids.append(self.special_tokens[piece])
            else:
                ids.extend(self._processor.encode(piece))
        return ids

    def encode_to_numpy(self, text: str) -> np.ndarray:
        return np.array(self.encode(text), dtype=np.uint32)

    def decode(self, ids: Iterable[int]) -> str:
        text = b"".join(map(self._bytes, plain_ids(ids))).decode("utf-8", errors="replace")
        return text.removeprefix(" ") if self._adds_space else text

    def token_bytes(self, id: int) -> bytes:
        id = plain_id(id)
        return b"" if id in self._special_ids else self._bytes(id)

    def _bytes(self, id: int) -> bytes:
        if not 0 <= id < self._n_ids:
            raise id_error(id, self.vocab_size)
        return self._pieces.get(id, b"")

    def to_dict(self) -> dict[str, Any]:
        return {
            "type": "sentencepiece",
            **({"added_tokens": self.added_tokens} if self.added_tokens else {}),
            **({"bos_token": self.bos_token} if self.bos_token is not None else {}),
            "model": base64.b64encode(self.model).decode("ascii"),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SentencePieceTokenizer:
        return cls(base64.b64decode(data["model"], validate=True), data.get("added_tokens"), data.get("bos_token"))

    @classmethod
    def load(cls, path: Path | str) -> SentencePieceTokenizer:
        """The tokenizer that `save` wrote. Raises UserError if the file is missing, damaged or of another type."""
        return load_kind("sentencepiece", cls.from_dict, path)

    def save(self, path: Path | str) -> None:
        save_json(self.to_dict(), path)


def _processor(model: bytes) -> Any:
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise UserError("SentencePiece models need another package: pip install 'glassgpt[sentencepiece]'") from None
    processor = SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
    except RuntimeError:
        raise ValueError("it is not a SentencePiece model") from None
    return processor
