"""The text of a request as its ids are chosen, up to a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from glassgpt.errors import UserError
from glassgpt.tokenizers.base import Tokenizer
from glassgpt.tokenizers.stream import StreamDecoder


class TextUntil:
    """Decodes ids one at a time, and stops before the first of the `stops`, which may take several ids.

    The joined results of `feed` and `flush` are the text before the stop string. Text that may be the beginning of a
    stop string is held back until that is known. Raises UserError for an empty stop string.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        if "" in stops:
            raise UserError("a stop string is empty: give at least one character, or leave it out")
        self.stopped = False
        self._stops = stops
        self._decoder = StreamDecoder(tokenizer)
        self._held = ""

    def feed(self, id: int) -> str:
        """The text that is certain after this id. It may be empty. `stopped` says whether a stop string is complete."""
        self._held += self._decoder.feed(id)
        return self._release(len(self._held) - self._begun())

    def flush(self) -> str:
        """The rest of the text, after the last id."""
        self._held += self._decoder.flush()
        return self._release(len(self._held))

    def _release(self, n: int) -> str:
        """The first `n` characters that are held back, or those before a stop string."""
        places = [self._held.index(stop) for stop in self._stops if stop in self._held]
        if places:
            text, self._held, self.stopped = self._held[: min(places)], "", True
        else:
            text, self._held = self._held[:n], self._held[n:]
        return text

    def _begun(self) -> int:
        """How many characters at the end are the beginning of a stop string."""
        longest = max(map(len, self._stops), default=0)
        endings = range(min(longest, len(self._held)), 0, -1)
        return next((n for n in endings if any(stop.startswith(self._held[-n:]) for stop in self._stops)), 0)
