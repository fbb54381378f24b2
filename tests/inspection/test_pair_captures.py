"""What is captured in an encoder-decoder is what it computes: attention within source and target, and between them."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from toy_models import C, H, V, build

from glassgpt.data.pairs import Ends
from glassgpt.errors import UserError
from glassgpt.generation.translate import write_target
from glassgpt.inspection.capture import capture_names, capture_pair
from glassgpt.inspection.pairs import PARTS, look_at_pair, sharpness, trace_pair
from glassgpt.inspection.taps import tapped
from glassgpt.models import EncoderDecoderModel
from glassgpt.models.t5 import T5
from glassgpt.tokenizers.char import CharTokenizer

S, T, L = 7, 5, 3
SOURCE = torch.randint(V, (2, S), generator=torch.Generator().manual_seed(1))
TARGET = torch.randint(V, (2, T), generator=torch.Generator().manual_seed(2))
TOKENIZER = CharTokenizer(list("abcdefghij"), ["<|endoftext|>"])


@pytest.fixture(params=["transformer", "t5"])
def model(request: pytest.FixtureRequest) -> EncoderDecoderModel:
    return cast(EncoderDecoderModel, build(request.param).eval())


@torch.no_grad()
def test_logits_and_shapes(model: EncoderDecoderModel) -> None:
    logits, seen = capture_pair(model, SOURCE, TARGET)
    torch.testing.assert_close(logits, model(SOURCE, TARGET), atol=1e-4, rtol=1e-4)
    assert list(seen) == capture_names(model)
    D, n = C // H, 1
    expected = {
        f"encoder.blocks.{n}.attn.pattern": (2, H, S, S), f"encoder.blocks.{n}.resid": (2, S, C), "memory": (2, S, C),
        "encoder.embed": (2, S, C), "decoder.embed": (2, T, C),
        f"decoder.blocks.{n}.attn.scores": (2, H, T, T), f"decoder.blocks.{n}.cross.q": (2, H, T, D),
        f"decoder.blocks.{n}.cross.k": (2, H, S, D), f"decoder.blocks.{n}.cross.pattern": (2, H, T, S),
        f"decoder.blocks.{n}.cross.out": (2, H, T, D), f"decoder.blocks.{n}.resid": (2, T, C), "final": (2, T, C),
    }  # fmt: skip
    assert {name: tuple(seen[name].shape) for name in expected} == expected
    assert len(seen) == L * (6 + 1) + L * (12 + 1) + 2 + 2
    for n in range(L):
        cross = seen[f"decoder.blocks.{n}.cross.pattern"]
        torch.testing.assert_close(cross.sum(dim=-1), torch.ones(2, H, T))
        torch.testing.assert_close(
            cross @ seen[f"decoder.blocks.{n}.cross.v"], seen[f"decoder.blocks.{n}.cross.out"], atol=1e-4, rtol=1e-4
        )
    torch.testing.assert_close(model.head(model.features(TARGET, seen["memory"])), logits, atol=1e-4, rtol=1e-4)
    assert vars(model).keys().isdisjoint({"encode", "features"})  # nothing is left of the taps


@torch.no_grad()
def test_an_edit_of_the_memory_reaches_the_target(model: EncoderDecoderModel) -> None:
    plain = model(SOURCE, TARGET)
    for name in ("memory", "decoder.blocks.2.cross.pattern"):
        with tapped(model, {name: lambda value: 2 * value}):
            assert (model(SOURCE, TARGET) - plain).abs().max() > 0.01
    torch.testing.assert_close(model(SOURCE, TARGET), plain)


def test_patterns_of_the_three_parts(model: EncoderDecoderModel) -> None:
    seen = trace_pair(model, SOURCE[0].tolist(), TARGET[0].tolist(), stop_id=3)
    _, captured = capture_pair(model, SOURCE[:1], TARGET[:1])
    names = {
        "cross": "decoder.blocks.{}.cross",
        "encoder": "encoder.blocks.{}.attn",
        "decoder": "decoder.blocks.{}.attn",
    }
    for part in PARTS:
        expected = torch.cat([captured[f"{names[part].format(n)}.pattern"] for n in range(L)])
        torch.testing.assert_close(seen.patterns(part), expected)
        rows, keys = seen.ids_of(part)
        assert seen.patterns(part).shape == (L, H, len(rows), len(keys))
    assert seen.outputs == [*TARGET[0, 1:].tolist(), 3] and seen.inputs == TARGET[0].tolist()
    assert (seen.decoder.triu(diagonal=1) == 0).all() and (seen.encoder.triu(diagonal=1) > 0).any()
    expected = [[sum(max(row) for row in head) / T for head in block] for block in seen.cross.tolist()]
    torch.testing.assert_close(sharpness(seen.cross), torch.tensor(expected))


@torch.no_grad()
def test_the_lens_reads_each_layer_of_the_decoder_as_if_it_were_the_last(model: EncoderDecoderModel) -> None:
    seen = trace_pair(model, SOURCE[0].tolist(), TARGET[0].tolist(), stop_id=3)
    _, captured = capture_pair(model, SOURCE[:1], TARGET[:1])
    streams = [captured["decoder.embed"], *(captured[f"decoder.blocks.{n}.resid"] for n in range(L))]
    assert seen.lens.ids.shape == (L + 1, T, 5) and seen.lens.target_probabilities.shape == (L + 1, T)
    for layer, stream in enumerate(streams):
        features = model.decoder.norm(stream) * C**-0.5 if isinstance(model, T5) else stream
        p = model.head(features)[0].softmax(dim=-1)
        best = p.topk(5, dim=-1)
        torch.testing.assert_close(seen.lens.probabilities[layer], best.values, atol=1e-4, rtol=1e-4)
        assert torch.equal(seen.lens.ids[layer, :, 0], best.indices[:, 0])
        of_targets = p.gather(1, torch.tensor(seen.outputs)[:, None])[:, 0]
        torch.testing.assert_close(seen.lens.target_probabilities[layer], of_targets, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        seen.lens.probabilities[-1, :, 0], seen.logits.softmax(-1).amax(-1), atol=1e-4, rtol=1e-4
    )


def test_without_a_target_the_model_writes_it(model: EncoderDecoderModel) -> None:
    ends = Ends.of(TOKENIZER)
    seen = look_at_pair(model, TOKENIZER, "abcab")
    assert seen.source == [*TOKENIZER.encode("abcab"), ends.stop_id]
    (written,) = write_target(model, torch.tensor([seen.source]), ends.start_id, ends.stop_id, 11)
    assert seen.inputs == [ends.start_id, *written]
    steps = min(len(written) + 1, 11)
    assert seen.logits.argmax(dim=-1)[:steps].tolist() == seen.outputs[:steps]  # it writes what is most likely
    given = look_at_pair(model, TOKENIZER, "abcab", "fa")
    assert given.inputs == [ends.start_id, *TOKENIZER.encode("fa")]
    assert given.outputs == [*TOKENIZER.encode("fa"), ends.stop_id]
    assert look_at_pair(model, TOKENIZER, "", "").outputs == [ends.stop_id]


def test_what_is_too_long_or_unknown_is_refused(model: EncoderDecoderModel) -> None:
    with pytest.raises(UserError, match="the text has 13 tokens, more than the model's block_size of 12"):
        look_at_pair(model, TOKENIZER, "a" * 12)
    with pytest.raises(UserError, match="the text has 13 tokens"):
        look_at_pair(model, TOKENIZER, "a", "b" * 12)
    with pytest.raises(UserError, match=r"'decoder.blocks.0.cross.patern': did you mean .*cross.pattern"):
        capture_pair(model, SOURCE, TARGET, ["decoder.blocks.0.cross.patern"])
    with pytest.raises(UserError, match="has no token that ends a target"):
        look_at_pair(model, CharTokenizer(list("ab"), []), "a")
