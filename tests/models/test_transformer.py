"""The encoder-decoder of 2017: where its norms stand, what each position sees, and that it learns to reverse."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from glassgpt.costs.flops import count_parameters
from glassgpt.costs.memory import part_of
from glassgpt.errors import UserError
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.generation.translate import write_target
from glassgpt.models import ARCHITECTURES, EncoderDecoderModel, EncoderModel, build_model, find_architecture, is_tied
from glassgpt.models.context import KVCache
from glassgpt.models.transformer import TRANSFORMER_SIZES, Transformer, TransformerConfig, sinusoids

V = 13
VISIBLE = torch.arange(9) < torch.tensor([[9], [4], [7]])


def toy(**sizes: int | bool | str) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(V, 20, 2, 2, 12, n_encoder_layer=3, **sizes))  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.3)
    return model.eval()


def some_tokens(B: int, T: int, seed: int = 2) -> Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))


def test_the_kind_is_told_by_the_class() -> None:
    for architecture in ARCHITECTURES.values():
        kinds = {EncoderDecoderModel: "encoder-decoder", EncoderModel: "encoder"}
        expected = [name for cls, name in kinds.items() if issubclass(architecture.model, cls)]  # type: ignore[arg-type]
        assert architecture.kind == (expected or ["decoder"])[0]
    assert find_architecture("transformer").kind == "encoder-decoder"
    assert find_architecture("gpt2").kind == "decoder"
    assert not find_architecture("transformer").takes_context


def test_what_needs_a_model_of_one_text_is_told() -> None:
    with pytest.raises(UserError, match="'transformer' is an encoder-decoder, which reads a source beside its text"):
        build_model("transformer", TransformerConfig())


@pytest.mark.parametrize(("size", "said"), [("base", 65e6), ("big", 213e6)])
def test_the_sizes_are_about_those_of_the_paper(size: str, said: float) -> None:
    with torch.device("meta"):
        assert count_parameters(Transformer(TRANSFORMER_SIZES[size])) == pytest.approx(said, rel=0.03)


def test_the_head_is_the_embedding_of_both_texts() -> None:
    model = toy()
    assert is_tied(model)
    assert {part_of(name) for name, _ in model.named_parameters()} == {
        "token table", "attention", "MLP", "norms", "head"
    }  # fmt: skip
    assert [len(model.encoder.blocks), len(model.decoder.blocks), len(model.blocks)] == [3, 2, 5]
    assert model.blocks[0] is model.encoder.blocks[0] and model.blocks[-1] is model.decoder.blocks[-1]


@torch.no_grad()
def test_a_copy_is_tied_to_itself() -> None:
    model, source, target = toy(), some_tokens(1, 5), some_tokens(1, 4)
    twin, expected = copy.deepcopy(model), model(source, target)
    twin.token_embedding.weight.zero_()
    torch.testing.assert_close(twin(source, target), twin.head_bias.expand(1, 4, V))
    assert torch.equal(model(source, target), expected)


@pytest.mark.parametrize("n_embd", [2, 12])
def test_positions_are_the_formula_of_the_paper(n_embd: int) -> None:
    found = sinusoids(torch.tensor([[0, 1], [3, 511]]), n_embd)
    for index, position in ((0, 0), (0, 1), (1, 3), (1, 511)):
        row = found[index, 1 if position in (1, 511) else 0]
        for i in range(n_embd // 2):
            angle = position / 10_000 ** (2 * i / n_embd)
            assert row[i].item() == pytest.approx(math.sin(angle), abs=1e-12)
            assert row[n_embd // 2 + i].item() == pytest.approx(math.cos(angle), abs=1e-12)
    assert not [name for name, _ in toy().named_buffers()] and "position" not in str(toy().state_dict().keys())


@torch.no_grad()
def test_the_norm_stands_after_the_sum() -> None:
    """What leaves a block is normalised, whatever enters it, and nothing is normalised on the way to the head."""
    model = toy()
    for block in model.blocks:
        last = block.norm3 if hasattr(block, "norm3") else block.norm2
        last.weight.fill_(1.0)
        last.bias.zero_()
    memory = model.encode(some_tokens(2, 9))
    for x in (memory, model.features(some_tokens(2, 6), 100 * memory)):
        torch.testing.assert_close(x.mean(-1), torch.zeros(x.shape[:2]), atol=1e-5, rtol=0)
        torch.testing.assert_close(x.var(-1, unbiased=False), torch.ones(x.shape[:2]), atol=1e-3, rtol=0)


@torch.no_grad()
def test_a_block_is_what_the_paper_says() -> None:
    """The decoder's block written out once more, without the module: sublayer, sum, norm, three times."""
    block, x, memory = toy().decoder.blocks[0], torch.randn(1, 4, 12), torch.randn(1, 6, 12)

    def attend(layer: torch.nn.Module, x: Tensor, others: Tensor, causal: bool) -> Tensor:
        heads = []
        for rows in (slice(0, 6), slice(6, 12)):
            q, k, v = ((inputs @ part.weight[rows].T + part.bias[rows]) for inputs, part in
                       ((x, layer.q), (others, layer.k), (others, layer.v)))  # fmt: skip
            scores = q @ k.transpose(1, 2) / math.sqrt(6)
            if causal:
                scores = scores + torch.full_like(scores, -torch.inf).triu(1)
            heads.append(scores.softmax(-1) @ v)
        return torch.cat(heads, -1) @ layer.proj.weight.T + layer.proj.bias

    y = block.norm1(x + attend(block.attn, x, x, True))
    y = block.norm2(y + attend(block.cross, y, memory, False))
    y = block.norm3(y + F.relu(y @ block.mlp.up.weight.T + block.mlp.up.bias) @ block.mlp.down.weight.T
                    + block.mlp.down.bias)  # fmt: skip
    torch.testing.assert_close(block(x, memory), y, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_who_sees_what() -> None:
    model, source, target = toy(), some_tokens(1, 9), some_tokens(1, 6)
    logits, memory = model(source, target), model.encode(source)
    later = target.clone()
    later[0, 4] = (later[0, 4] + 1) % V
    changed = (model(source, later) != logits).any(-1)[0]
    assert changed.tolist() == [False] * 4 + [True] * 2  # targets see themselves and what is before
    for position in (0, 8):
        other = source.clone()
        other[0, position] = (other[0, position] + 1) % V
        assert (model.encode(other) != memory).any(-1).all()  # sources see all
        assert (model(other, target) != logits).any(-1).all()  # and targets see all of the source


@torch.no_grad()
def test_padding_changes_nothing() -> None:
    model, source, target = toy(), some_tokens(3, 9), some_tokens(3, 6)
    logits = model(source, target, visible=VISIBLE)
    for row, length in enumerate(VISIBLE.sum(1).tolist()):
        alone = model(source[row : row + 1, :length], target[row : row + 1])
        torch.testing.assert_close(logits[row : row + 1], alone, atol=1e-5, rtol=1e-5)
    noise = torch.where(VISIBLE, source, some_tokens(3, 9, seed=5))
    assert torch.equal(model(noise, target, visible=VISIBLE), logits)
    assert not torch.allclose(model(source, target)[1], logits[1], atol=1e-2)  # it would change without `visible`


@torch.no_grad()
def test_cached_logits_are_those_of_one_pass() -> None:
    model, source, target = toy(), some_tokens(3, 9), some_tokens(3, 20)
    memory, cache, parts = model.encode(source, visible=VISIBLE), KVCache(20), []
    for start, end in ((0, 3), (3, 4), (4, 11), (11, 20)):
        # Later passes read the memory from the cache: what is given here again is not looked at.
        given = memory if start == 0 else torch.full_like(memory, torch.nan)
        parts.append(model.features(target[:, start:end], given, visible=VISIBLE, context=cache))
    expected = model(source, target, visible=VISIBLE)
    torch.testing.assert_close(model.head(torch.cat(parts, dim=1)), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_written_ids_are_the_uncached_argmax() -> None:
    model, source = toy(), some_tokens(3, 9)
    target = torch.full((3, 1), 1)
    for _ in range(19):
        logits = model(source, target, visible=VISIBLE)[:, -1]
        target = torch.cat([target, logits.argmax(-1, keepdim=True)], dim=1)
    expected = target[:, 1:].tolist()
    assert len({tuple(row) for row in expected}) == 3
    model.train()
    assert write_target(model, source, 1, None, 19, VISIBLE) == expected
    assert model.training
    stop = expected[0][3]
    ended = [row[: row.index(stop)] if stop in row else row for row in expected]
    assert write_target(model, source, 1, stop, 19, VISIBLE) == ended
    assert len(ended[0]) <= 3


@torch.no_grad()
def test_sampled_ids_follow_the_probabilities() -> None:
    model = toy()
    source = some_tokens(1, 5).expand(4000, 5)
    drawn = write_target(model, source, 1, None, 1, config=SamplingConfig(), generator=torch.Generator().manual_seed(3))
    found = torch.tensor(drawn).flatten().bincount(minlength=V) / 4000
    expected = model(source[:1], torch.tensor([[1]]))[0, 0].softmax(-1)
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)
    assert (expected > 0.05).sum() > 1  # not greedy


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens = 0 is out of range"),
        ({"max_new_tokens": 21}, "a target of up to 21 tokens is too long: model.block_size is 20"),
        ({"sources": some_tokens(1, 21)}, "a source of 21 tokens is too long"),
        ({"visible": torch.zeros(2, 9, dtype=torch.bool)}, "a source has no tokens"),
    ],
)
def test_what_cannot_be_written_is_told(arguments: dict[str, object], told: str) -> None:
    given = {"sources": some_tokens(2, 9), "start_id": 1, "stop_id": 2, "max_new_tokens": 5}
    with pytest.raises(UserError, match=told):
        write_target(toy(), **given | arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"n_encoder_layer": 0}, "model.n_encoder_layer = 0 is out of range"),
        ({"n_hidden": 1 << 21}, "model.n_hidden = 2097152 is out of range: at least 1, at most 1,048,576"),
        ({"n_embd": 15, "n_head": 3}, "model.n_embd = 15 is odd"),
        ({"n_embd": 10, "n_head": 4}, "not divisible by model.n_head"),
        ({"activation": "gelu"}, "unknown model.activation 'gelu': .*Known: relu, swish"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes: dict[str, int], told: str) -> None:
    with pytest.raises(UserError, match=told):
        TransformerConfig(**sizes)  # type: ignore[arg-type]


PAD, START, STOP, FIRST, SYMBOLS, LONGEST = 0, 1, 2, 3, 8, 4


def words(B: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Words of 2 to 4 symbols (B, S), which positions have one, and the input and the output of the decoder."""
    lengths, positions = torch.randint(2, LONGEST + 1, (B, 1), generator=generator), torch.arange(LONGEST)
    visible = positions < lengths
    source = torch.randint(FIRST, FIRST + SYMBOLS, (B, LONGEST), generator=generator) * visible
    backwards = source.gather(1, (lengths - 1 - positions).clamp(min=0)) * visible
    end = torch.zeros(B, 1, dtype=torch.long)
    return (
        source,
        visible,
        torch.cat([end + START, backwards], 1),
        torch.cat([backwards, end], 1).scatter(1, lengths, STOP),
    )


def test_it_learns_to_write_words_backwards() -> None:
    """In a few seconds. A guess of a word is right less than once in a hundred times."""
    torch.manual_seed(0)
    model, draw, steps = Transformer(TransformerConfig(FIRST + SYMBOLS, 16, 2, 4, 64)), torch.Generator(), 150
    assert 230_000 < count_parameters(model) < 240_000
    draw.manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, (step + 1) / 40) * (1 - step / steps)
        source, visible, inputs, outputs = words(32, draw)
        logits = model(source, inputs, visible=visible)
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), outputs.flatten(), ignore_index=PAD).backward()
        optimizer.step()
    source, visible, inputs, _ = words(200, draw)
    wanted = [[id for id in row if id != PAD] for row in inputs[:, 1:].tolist()]
    written = write_target(model, source, START, STOP, LONGEST + 1, visible)
    assert sum(found == right for found, right in zip(written, wanted, strict=True)) > 150
    elsewhere = written[1:] + written[:1]  # what it wrote for other words
    assert sum(found == right for found, right in zip(elsewhere, wanted, strict=True)) < 10
