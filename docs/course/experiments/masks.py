"""The same small model with the causal mask and without it, on two tasks: the next letter, and a missing letter.

The model is section 9 of the ladder with two blocks. Without the mask it is an encoder: each position hears those after
it too. For the missing letters, one of eight is replaced by a sign of its own, as in BERT (Devlin et al. 2018).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lab import adamw, open_text, row, text_parser
from torch import Tensor

from glassgpt.data.dataset import Dataset
from glassgpt.data.loader import Loader
from glassgpt.models.ladder import LadderConfig
from glassgpt.models.ladder.s09_layernorm import LayerNormModel

BLOCK_SIZE, ROWS = 16, 32
HIDDEN = 1 / 8  # the share of letters that are missing
PROMPT = "The "


def build(vocab_size: int, causal: bool) -> LayerNormModel:
    """The model, with one more token than the text has: that of a missing letter."""
    model = LayerNormModel(LadderConfig(vocab_size + 1, block_size=BLOCK_SIZE, n_layer=2, n_embd=64))
    for block in model.blocks:
        block.attn.inner.causal = causal
    return model


def next_letter(inputs: Tensor, targets: Tensor, generator: torch.Generator, missing: int) -> tuple[Tensor, Tensor]:
    """What the model reads and what it should say, (B, T): at each position the letter after it."""
    return inputs, targets


def missing_letter(inputs: Tensor, targets: Tensor, generator: torch.Generator, missing: int) -> tuple[Tensor, Tensor]:
    """Some letters replaced by `missing`, and what stood there; all other positions, −100, do not count in the loss."""
    hidden = torch.rand(inputs.shape, generator=generator) < HIDDEN
    return inputs.masked_fill(hidden, missing), inputs.masked_fill(~hidden, -100)


def loss_of(model: LayerNormModel, task, loader: Loader, step: int, generator: torch.Generator) -> Tensor:
    """Nats per letter that counts, on the rows of one step."""
    inputs, targets = task(*loader.rows(step), generator, missing=model.config.vocab_size - 1)
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


def train(model: LayerNormModel, task, dataset: Dataset, steps: int, seed: int) -> float:
    """Trains the model, and returns its loss on 50 batches of the validation text."""
    loader, generator = Loader(dataset.train, BLOCK_SIZE, ROWS, seed), torch.Generator().manual_seed(seed)
    optimizer = adamw(model, 3e-3)
    for step in range(steps):
        loss = loss_of(model, task, loader, step, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    check, generator = Loader(dataset.val, BLOCK_SIZE, ROWS), torch.Generator().manual_seed(0)
    with torch.no_grad():
        return float(sum(loss_of(model, task, check, step, generator) for step in range(50)) / 50)


@torch.no_grad()
def loss_without_future(model: LayerNormModel, dataset: Dataset) -> float:
    """The loss of the next letter where the model gets only what stands before it, as when it writes."""
    losses = []
    for step in range(5):
        inputs, targets = Loader(dataset.val, BLOCK_SIZE, ROWS).rows(step)
        for t in range(BLOCK_SIZE):
            losses.append(F.cross_entropy(model(inputs[:, : t + 1])[:, -1], targets[:, t]))
    return float(torch.stack(losses).mean())


@torch.no_grad()
def write(model: LayerNormModel, dataset: Dataset) -> str:
    """The prompt and what the model writes behind it, up to the end of its window."""
    generator, ids = torch.Generator().manual_seed(0), dataset.tokenizer.encode(PROMPT)
    while len(ids) < BLOCK_SIZE:
        probabilities = model(torch.tensor([ids]))[0, -1, : dataset.tokenizer.vocab_size].softmax(dim=-1)
        ids.append(int(torch.multinomial(probabilities, 1, generator=generator)))
    return dataset.tokenizer.decode(ids)


def main() -> None:
    """Prints the table and the samples."""
    parser = text_parser(__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    dataset = open_text(options.data)
    losses: dict[tuple[str, bool], list[float]] = {}
    samples: dict[bool, str] = {}
    for seed in range(options.seeds):
        for causal in (True, False):
            for task in (missing_letter, next_letter):
                torch.manual_seed(seed)
                model = build(dataset.tokenizer.vocab_size, causal)
                losses.setdefault((task.__name__, causal), []).append(train(model, task, dataset, options.steps, seed))
            losses.setdefault(("cut off", causal), []).append(loss_without_future(model, dataset))
            samples.setdefault(causal, write(model, dataset))
    row("validation loss, nats per letter", "with the mask", "without", width=22)
    titles = {"missing_letter": "missing letter", "next_letter": "next letter", "cut off": "next, future cut off"}
    for name, title in titles.items():
        cells = [torch.tensor(losses[name, causal]) for causal in (True, False)]
        row(title, *(f"{each.mean():.3f} ({each.min():.3f}–{each.max():.3f})" for each in cells), width=22)
    for causal, title in ((True, "with the mask"), (False, "without")):
        print(f"{title:<15}{samples[causal]!r}")


if __name__ == "__main__":
    main()
