"""Hidden letters of a text: how many does counting find, how many a decoder, and how many an encoder?

Bert and GPT2 have the same size and read the same windows. Bert learns by finding hidden letters, three of every
twenty, and sees both sides of each. GPT2 learns by predicting every next letter, and sees the left side only. Then all
have to name the same hidden letters of the validation text. A third model is the decoder once more, but its loss counts
three of twenty predictions, as many as that of Bert does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from lab import CPU, adamw, n_parameters, row, text_parser
from torch import Tensor

from glassgpt.data.dataset import Dataset
from glassgpt.data.dataset_cache import DataConfig, build_dataset
from glassgpt.data.loader import Loader
from glassgpt.data.masking import VALIDATION_SEED, Hider
from glassgpt.data.shards import TokenArray
from glassgpt.evaluation.masked import count_masked, evaluate_masked
from glassgpt.models.bert import Bert, BertConfig
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.tokenizers import TokenizerConfig
from glassgpt.training.losses import Batch, Loss, MaskedBatch, masked_token_loss, next_token_loss

BLOCK_SIZE, ROWS = 20, 48
SIZES = {"block_size": BLOCK_SIZE, "n_layer": 2, "n_head": 4, "n_embd": 64}
HIDDEN = 0.15  # of the letters: three of twenty
PEAK = 3e-3
EVERY = 20  # steps between two measurements of a decoder
TRIED = 400  # windows in which the decoder tries every letter
PROMPT = "The "


def mask(hider: Hider, inputs: Tensor, samples: np.ndarray, *, training: bool) -> MaskedBatch:
    """The rows (B, T) with hidden letters, and which letters stood there."""
    hidden = hider.hide(inputs.numpy(), samples, training=training)
    return MaskedBatch(*(torch.from_numpy(part) for part in (hidden.inputs, hidden.places, hidden.targets)))


def train(
    model: Bert | GPT2,
    loss_of: Callable[[Tensor, Tensor, int], Loss],
    tokens: TokenArray,
    steps: int,
    seed: int,
    after: Callable[[int], None] = lambda step: None,
) -> float:
    """Trains a model. Returns the seconds that the processor worked for it, without those of `after`."""
    loader, optimizer, spent = Loader(tokens, BLOCK_SIZE, ROWS, seed), adamw(model, PEAK), 0.0
    for step in range(steps):
        began = time.process_time()
        for group in optimizer.param_groups:
            group["lr"] = PEAK * min(1.0, (step + 1) / 100) * (1 - 0.9 * step / steps)
        loss = loss_of(*loader.rows(step), step)
        optimizer.zero_grad()
        (loss.sum / loss.weight).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        spent += time.process_time() - began
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            after(step + 1)
    return spent


def train_encoder(dataset: Dataset, steps: int, seed: int) -> tuple[Bert, float]:
    """A Bert, and its seconds."""
    torch.manual_seed(seed)
    model, hider = Bert(BertConfig(dataset.tokenizer.vocab_size, **SIZES)), Hider(dataset.tokenizer, HIDDEN, seed)

    def loss_of(inputs: Tensor, targets: Tensor, step: int) -> Loss:
        return masked_token_loss(model, mask(hider, inputs, step * ROWS + np.arange(ROWS), training=True))

    return model, train(model, loss_of, dataset.train, steps, seed)


def train_decoder(
    dataset: Dataset, steps: int, seed: int, share: float = 1.0
) -> tuple[GPT2, float, list[tuple[int, float]]]:
    """A GPT2, its seconds, and the (step, loss on the validation text) on its way; `share` of the targets count."""
    torch.manual_seed(seed)
    model, curve = GPT2(GPT2Config(dataset.tokenizer.vocab_size, **SIZES)), []
    generator = torch.Generator().manual_seed(seed)

    def loss_of(inputs: Tensor, targets: Tensor, step: int) -> Loss:
        counted = torch.rand(targets.shape, generator=generator).argsort(dim=1) < round(share * BLOCK_SIZE)
        return next_token_loss(model, Batch(inputs, targets, None if share == 1.0 else counted.float()))

    def measure(step: int) -> None:
        curve.append((step, next_loss(model, dataset.val)))

    seconds = train(model, loss_of, dataset.train, steps, seed, measure)
    return model, seconds, curve


@torch.no_grad()
def next_loss(model: GPT2, tokens: TokenArray, batches: int = 5) -> float:
    """Nats per next letter on some windows."""
    loader = Loader(tokens, BLOCK_SIZE, 64)
    losses = [next_token_loss(model, Batch(*loader.rows(step))) for step in range(batches)]
    return float(sum(loss.sum for loss in losses)) / sum(float(loss.weight) for loss in losses)


def windows(tokens: TokenArray, batch: int = 256) -> list[tuple[np.ndarray, Tensor]]:
    """The windows of `evaluate_masked`, without the first: their numbers, and T + 1 letters each, from the one before.

    In batches (B,) and (B, T + 1). A rest that fills no window is left out.
    """
    numbers = np.arange(1, len(tokens) // BLOCK_SIZE)
    text = torch.from_numpy(tokens.slice(0, len(tokens)).astype(np.int64))
    rows = text[torch.from_numpy(numbers)[:, None] * BLOCK_SIZE - 1 + torch.arange(BLOCK_SIZE + 1)]
    return list(zip(np.split(numbers, range(batch, len(numbers), batch)), rows.split(batch), strict=True))


@torch.no_grad()
def found_from_left(model: GPT2, tokens: TokenArray, hider: Hider) -> float:
    """The share of the hidden letters that the decoder names, given up to 20 true letters to the left."""
    right, n = 0, 0
    for numbers, letters in windows(tokens):
        batch = mask(hider, letters[:, 1:].contiguous(), numbers, training=False)
        guesses = model(letters[:, :-1]).argmax(dim=-1)  # (B, T): the guess for each letter of the window
        right += int((guesses.gather(1, batch.places) == batch.targets).sum())
        n += batch.targets.numel()
    return right / n


@torch.no_grad()
def found_by_trying(model: GPT2, tokens: TokenArray, hider: Hider) -> float:
    """The same where one letter of each window is hidden, and the decoder reads the window once with every letter.

    It names the letter with which the hidden place and what follows are likeliest. So it uses both sides.
    """
    right, n, V = 0, 0, model.config.vocab_size
    for numbers, letters in windows(tokens, 8)[: TRIED // 8]:
        batch = mask(hider, letters[:, 1:].contiguous(), numbers, training=False)
        tried = letters[:, None].repeat(1, V, 1)  # (B, V, T + 1)
        every = torch.arange(V)[None, :, None].expand(len(letters), -1, 1)
        tried.scatter_(2, (batch.places + 1)[:, None].expand(-1, V, -1), every)
        logits = model(tried[..., :-1].flatten(0, 1)).flatten(0, 1)
        losses = F.cross_entropy(logits, tried[..., 1:].flatten(), reduction="none").view(len(letters), V, -1)
        right += int((losses.sum(dim=-1).argmin(dim=1) == batch.targets[:, 0]).sum())
        n += len(letters)
    return right / n


@torch.no_grad()
def found_at_end(encoder: Bert, decoder: GPT2, tokens: TokenArray, hider: Hider) -> tuple[float, float]:
    """The share of letters that each finds if nothing stands after them: the last one of each window."""
    right, n = torch.zeros(2), 0
    for _, letters in windows(tokens):
        true, inputs = letters[:, -1], letters[:, 1:].clone()
        inputs[:, -1] = hider.mask_id
        guesses = encoder(inputs)[:, -1].argmax(dim=-1), decoder(letters[:, 1:-1])[:, -1].argmax(dim=-1)
        right += torch.stack([(guess == true).sum() for guess in guesses])
        n += len(letters)
    return float(right[0]) / n, float(right[1]) / n


@torch.no_grad()
def write(model: Bert | GPT2, dataset: Dataset, hider: Hider, letters: int = 30) -> str:
    """The prompt and what a model writes behind it; an encoder is asked for a hidden letter at the end each time."""
    generator, ids = torch.Generator().manual_seed(0), dataset.tokenizer.encode(PROMPT)
    while len(ids) < len(PROMPT) + letters:
        seen = [*ids[1 - BLOCK_SIZE :], hider.mask_id] if isinstance(model, Bert) else ids[-BLOCK_SIZE:]
        logits = model(torch.tensor([seen]))[0, -1]
        logits[hider.mask_id] = -torch.inf
        ids.append(int(torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)))
    return dataset.tokenizer.decode(ids)


def main() -> None:
    """Trains, and prints the tables."""
    parser = text_parser(__doc__)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = build_dataset(DataConfig(options.data), TokenizerConfig("char", special_tokens=("[MASK]",)))
    print(dataset.note)
    val, V = dataset.val, dataset.tokenizer.vocab_size
    many, one = (Hider(dataset.tokenizer, share, VALIDATION_SEED) for share in (HIDDEN, 1 / BLOCK_SIZE))
    cells: dict[str, list[float]] = {}
    curves: list[list[tuple[int, float]]] = []
    encoder: Bert | None = None

    def keep(name: str, value: float) -> None:
        cells.setdefault(name, []).append(value)

    for seed in range(options.seeds):
        encoder, seconds = train_encoder(dataset, options.steps, seed)
        keep("encoder seconds", seconds)
        decoder, seconds, curve = train_decoder(dataset, options.steps, seed)
        keep("decoder seconds", seconds)
        if seed == 0:
            curves += [curve, train_decoder(dataset, options.steps, seed, share=HIDDEN)[2]]
        for name, hider in (("many", many), ("one", one)):
            keep(f"encoder {name}", evaluate_masked(encoder, val, hider, CPU).accuracy)
            keep(f"decoder {name}", found_from_left(decoder, val, hider))
        keep("tried one", found_by_trying(decoder, val, one))
        at_end = found_at_end(encoder, decoder, val, one)
        keep("encoder end", at_end[0])
        keep("decoder end", at_end[1])

    def shown(name: str) -> str:
        found = cells.get(name, [])
        return f"{statistics.mean(found):.1%} ({min(found):.1%}–{max(found):.1%})" if found else ""

    assert encoder is not None
    count = count_masked(dataset.train, val, many, BLOCK_SIZE, V), count_masked(dataset.train, val, one, BLOCK_SIZE, V)
    row("found of the hidden letters", "3 of 20 hidden", "1 of 20 hidden", "nothing after it", width=24)
    row("the most frequent letter", *(f"{each.most_frequent:.1%}" for each in count), "", width=24)
    row("5-gram: 4 letters to the left", *(f"{each.ngram:.1%}" for each in count if each.ngram), "", width=24)
    row("decoder: the left side", *map(shown, ("decoder many", "decoder one", "decoder end")), width=24)
    row("encoder: both sides", *map(shown, ("encoder many", "encoder one", "encoder end")), width=24)
    row("decoder, every letter tried", "", shown("tried one"), "", width=24)
    for name, model in (("encoder", encoder), ("decoder", decoder)):
        spent = statistics.mean(cells[f"{name} seconds"])
        print(f"{name}: {n_parameters(model):,} parameters, {options.steps} steps in {spent:.1f} s of processor time")
    every, some = curves
    shown_at = [len(every) * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
    row("the decoder's loss", *(f"after {every[at][0]} steps" for at in shown_at), width=18)
    row("every prediction counts", *(every[at][1] for at in shown_at), width=18)
    row("3 of 20 predictions count", *(some[at][1] for at in shown_at), width=18)
    last = some[-1][1]
    sooner = next((step for step, loss in every if loss <= last), options.steps)
    print(f"with every prediction, the loss is {last:.3f} or less after {sooner} steps instead of {options.steps}")
    for name, model in (("decoder", decoder), ("encoder", encoder)):
        print(f"{name} writes {write(model, dataset, one)!r}")


if __name__ == "__main__":
    main()
