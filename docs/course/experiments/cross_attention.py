"""Two models learn to write a word backwards: one with an encoder and cross-attention, one with a decoder alone.

The encoder reads the word. The decoder writes the answer, and asks the encoder's outputs by cross-attention. The
decoder alone reads the word and writes the answer in one sequence, as GPT does. Both have two blocks, and see the same
words. The map is the cross-attention: a row for each letter that is written, a column for each letter that is read.
"""

from __future__ import annotations

import argparse
import time

import torch
import torch.nn.functional as F
from lab import adamw, n_parameters, row
from torch import Tensor, nn

from glassgpt.models.ladder.s04_head import attention_scores

N_EMBD = 64
LETTERS = "abcdefghijklmnopqrstuvwxyz"
BEGIN = len(LETTERS)  # the token before an answer
LONGEST = 8  # letters


class Attention(nn.Module):
    """One head. Queries from x (B, T, C); keys and values from source (B, S, C), which is x in self-attention."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(N_EMBD, N_EMBD, bias=False) for _ in range(3))
        self.causal = causal

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        q, k, v = self.query(x), self.key(source), self.value(source)
        scores = attention_scores(q, k)  # (B, T, S)
        if self.causal:
            future = torch.ones(scores.shape[1:], dtype=torch.bool).triu(diagonal=1)
            scores = scores.masked_fill(future, -torch.inf)
        self.pattern = scores.softmax(dim=-1)
        return self.pattern @ v


class Block(nn.Module):
    """Self-attention, with `cross` also cross-attention, and an MLP; each adds to the stream."""

    def __init__(self, causal: bool, cross: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(N_EMBD) for _ in range(3))
        self.attn = Attention(causal)
        self.cross = Attention(causal=False) if cross else None
        self.mlp = nn.Sequential(nn.Linear(N_EMBD, 4 * N_EMBD), nn.GELU(), nn.Linear(4 * N_EMBD, N_EMBD))

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attn(normed, normed)
        if self.cross is not None and source is not None:
            x = x + self.cross(self.norm2(x), source)
        return x + self.mlp(self.norm3(x))


class Embedding(nn.Module):
    """Tokens (B, T) to the sum of the embeddings of each token and of its position (B, T, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(len(LETTERS) + 1, N_EMBD), nn.Embedding(2 * LONGEST, N_EMBD)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.token(tokens) + self.position(torch.arange(tokens.size(1)))


class EncoderDecoder(nn.Module):
    """words (B, S) and the answers so far (B, T) to the logits of each next letter of the answers (B, T, V)."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.written = Embedding(), Embedding()
        self.encoder, self.decoder = Block(causal=False), Block(causal=True, cross=True)
        self.norm = nn.LayerNorm(N_EMBD)
        self.head = nn.Linear(N_EMBD, len(LETTERS))

    def forward(self, words: Tensor, answers: Tensor) -> Tensor:
        source = self.norm(self.encoder(self.read(words)))
        return self.head(self.decoder(self.written(answers), source))


class DecoderAlone(nn.Module):
    """The same, from one sequence: the word, and then the answer so far."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = Embedding()
        self.blocks = nn.ModuleList(Block(causal=True) for _ in range(2))
        self.head = nn.Linear(N_EMBD, len(LETTERS))

    def forward(self, words: Tensor, answers: Tensor) -> Tensor:
        x = self.embedding(torch.cat([words, answers], dim=1))
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, words.size(1) :])


def batch(generator: torch.Generator, rows: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """Words of random letters, all of one length; what the decoder reads, and what it should write: (rows, length)."""
    length = int(torch.randint(3, LONGEST + 1, (1,), generator=generator))
    words = torch.randint(len(LETTERS), (rows, length), generator=generator)
    targets = words.flip(1)
    begin = torch.full((rows, 1), BEGIN)
    return words, torch.cat([begin, targets[:, :-1]], dim=1), targets


def train(model: nn.Module, steps: int, seed: int) -> None:
    """The plain loop: the loss is that of the answer's letters."""
    optimizer, generator = adamw(model, 3e-3), torch.Generator().manual_seed(seed)
    for _ in range(steps):
        words, answers, targets = batch(generator)
        loss = F.cross_entropy(model(words, answers).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


@torch.no_grad()
def write(model: nn.Module, words: Tensor) -> Tensor:
    """The answers (B, S), letter by letter: each is the likeliest, given the word and the letters before it."""
    answers = torch.full((len(words), 1), BEGIN)
    for _ in range(words.size(1)):
        answers = torch.cat([answers, model(words, answers)[:, -1:].argmax(dim=-1)], dim=1)
    return answers[:, 1:]


def accuracy(model: nn.Module, batches: int = 20) -> float:
    """The share of new words that come out right as a whole."""
    generator = torch.Generator().manual_seed(1000)
    right = [(write(model, words) == targets).all(dim=1).float().mean() for words, _, targets in
             (batch(generator) for _ in range(batches))]  # fmt: skip
    return float(torch.stack(right).mean())


def show_map(model: EncoderDecoder, word: str) -> None:
    """Prints what the model writes, and the cross-attention for each letter of it, in percent."""
    words = torch.tensor([[LETTERS.index(letter) for letter in word]])
    written = "".join(LETTERS[id] for id in write(model, words)[0])
    assert model.decoder.cross is not None
    print(f"\n{word} → {written}\n\nwrites   reads  " + "".join(f"{letter:>4}" for letter in word))
    for letter, weights in zip(written, model.decoder.cross.pattern[0], strict=True):
        print(f"   {letter}            " + "".join(f"{100 * weight:4.0f}" for weight in weights))


def main() -> None:
    """Prints the table and the map."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--word", default="reading", help="of 3 to 8 small letters")
    options = parser.parse_args()
    row("", "parameters", *(f"seed {seed}" for seed in range(options.seeds)), "seconds")
    first = None
    for name, architecture in (("encoder and decoder", EncoderDecoder), ("decoder alone", DecoderAlone)):
        right, started = [], time.perf_counter()
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            model = architecture()
            train(model, options.steps, seed)
            right.append(f"{accuracy(model):.1%}")
            first = model if first is None else first
        row(name, f"{n_parameters(model):,}", *right, f"{time.perf_counter() - started:.0f}")
    assert isinstance(first, EncoderDecoder)
    show_map(first, options.word)


if __name__ == "__main__":
    main()
