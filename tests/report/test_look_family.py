"""Pictures of models that are no plain decoders: windows, sinks, experts, encoders, cross-attention."""

from __future__ import annotations

import json
import re

import pytest
import torch
from rich.cells import cell_len
from test_look import HOSTILE, TOKENIZER, Outline

from glassgpt.errors import UserError
from glassgpt.inspection.guesses import encode_for_encoder
from glassgpt.inspection.pairs import PARTS
from glassgpt.inspection.trace import trace
from glassgpt.models import EncoderDecoderModel, Model, build_model, find_architecture
from glassgpt.report.look import Look
from glassgpt.report.look.pair import PairLook
from glassgpt.tokenizers.char import CharTokenizer

TEXT = "ab<>&ab<>"
SIZES = {"vocab_size": TOKENIZER.vocab_size + 3, "block_size": 32, "n_layer": 2, "n_head": 3, "n_embd": 24}
WINDOWS = {"gpt3": {"band_width": 3}, "gpt_oss": {"band_width": 3, "head_size": 8, "n_expert": 5, "n_active": 2}}


def build(architecture: str, **more: int) -> Model:
    torch.manual_seed(0)
    fields = SIZES | WINDOWS.get(architecture, {}) | more
    model = build_model(architecture, find_architecture(architecture).config(**fields)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = "norm" in name and name.endswith("weight")
            parameter.normal_(mean=1.0 if gain else 0.0, std=0.3)
    return model


def look(architecture: str, text: str = TEXT) -> Look:
    return Look(build(architecture), TOKENIZER, TOKENIZER.encode(text), "toy, step 3")


def rows_of(drawn: str) -> list[str]:
    return [line for line in drawn.splitlines() if re.match(r" ?\d+ ", line)]


# -- windows --


def test_what_is_outside_of_the_window_is_blank_and_a_weak_weight_is_a_point() -> None:
    view = look("gpt3").attention(1, 0)
    drawn = repr(view)
    for query, row in enumerate(rows_of(drawn)[:9]):
        signs = row[4 : 4 + 18]
        for key in range(9):
            assert (signs[2 * key] == " ") == (not query - 3 < key <= query), (query, key)
    assert "sees a window of 3 tokens, its own included" in " ".join(drawn.split())
    assert "outside of its window" in " ".join(drawn.split())
    assert "block 0 full" in drawn and "block 1 window 3" in drawn
    assert "window" not in repr(look("gpt2").attention(1, 0))


def test_the_picture_of_a_window_has_another_ground_outside_of_it() -> None:
    html = look("gpt3").attention(1, 0).html()
    hidden = re.search(r'<g class="unseen">(.*?)</g>', html, re.DOTALL)
    assert hidden is not None
    widths = [int(width) // 14 for width in re.findall(r'width="(\d+)"', hidden[1])]
    assert sum(widths) == 81 - (1 + 2 + 3 * 7)  # all cells but those of the window
    full = re.search(r'<g class="unseen">(.*?)</g>', look("gpt3").attention(0, 0).html(), re.DOTALL)
    assert full is not None and len(re.findall("<rect", full[1])) == 8  # after each token but the last
    assert "block 1, window 3" in html


def test_the_numbers_say_which_layers_have_a_window() -> None:
    assert look("gpt3").attention(1, 0).to_dict()["window"] == 3
    assert look("gpt3").attention(0, 0).to_dict()["window"] is None


# -- sinks --


def test_the_sink_has_a_column_of_its_own() -> None:
    seen = look("gpt_oss")
    view = seen.attention(0, 1)
    pattern = trace(seen.model, seen.ids)["blocks.0.attn.pattern"][0, 1]
    assert view.sinks is not None
    torch.testing.assert_close(view.sinks, 1 - pattern.sum(dim=-1))
    drawn = repr(view)
    signs = [row[4] for row in rows_of(drawn)[:9]]
    for sign, weight in zip(signs, view.sinks.tolist(), strict=True):
        assert sign == ("█" if weight >= 0.75 else "▓" if weight >= 0.5 else "▒" if weight >= 0.25
                        else "░" if weight >= 0.05 else ".")  # fmt: skip
    assert f"{float(view.sinks.mean()):.0%} of the attention goes to the sink" in " ".join(drawn.split())
    assert "gives its sink" in view.html()
    assert json.loads(json.dumps(view.to_dict()))["sink"] == pytest.approx(view.sinks.tolist(), abs=1e-6)
    assert look("gpt3").attention(0, 1).to_dict()["sink"] is None


@pytest.mark.parametrize("architecture", WINDOWS)
@pytest.mark.parametrize("width", [40, 63, 120])
def test_a_terminal_shows_any_text_within_its_width(architecture: str, width: int) -> None:
    for view in (look(architecture, HOSTILE).attention(0, 0), look(architecture, HOSTILE).attention(1, 2)):
        for line in view.lines(width):
            drawn = "".join(span.text for span in line).rstrip()
            assert drawn.isprintable() and cell_len(drawn) <= width
        assert not Outline(view._repr_html_()).open


# -- experts --


def test_the_experts_of_each_token_are_drawn() -> None:
    view = look("gpt_oss").experts()
    drawn = repr(view)
    for at, row in enumerate(rows_of(drawn)[:9]):
        for layer in range(2):
            signs = row[4 + layer * 12 : 4 + layer * 12 + 10 : 2].ljust(5)
            chosen = {expert for expert, sign in enumerate(signs) if sign != " "}
            assert chosen == set(view.routes.experts[layer, at].tolist())
    told = " ".join(drawn.split())
    assert "In each block of toy, step 3, a token chooses 2 of 5 experts." in told
    assert f"{int(view.routes.loads.max())} of 9 tokens chose it" in told
    html = view._repr_html_()
    assert not Outline(html).open and html.count("<title>") == 2 * 9 * 2
    found = json.loads(json.dumps(view.to_dict()))["layers"]
    assert [layer["experts"] for layer in found] == view.routes.experts.tolist()
    assert [layer["loads"] for layer in found] == view.routes.loads.tolist()


def test_the_experts_of_one_block() -> None:
    whole, one = look("gpt_oss").experts(), look("gpt_oss").experts(1)
    assert one.routes.layers == (1,)
    assert torch.equal(one.routes.experts[0], whole.routes.experts[1])
    with pytest.raises(UserError, match="no block 2 has experts; blocks that have them: 0, 1"):
        look("gpt_oss").experts(2)
    with pytest.raises(UserError, match="toy, step 3 has no experts"):
        look("gpt2").experts()


@pytest.mark.parametrize("width", [40, 63, 120])
@pytest.mark.parametrize("n_expert", [5, 30, 100])
def test_experts_fit_any_terminal(n_expert: int, width: int) -> None:
    seen = Look(build("gpt_oss", n_expert=n_expert), TOKENIZER, TOKENIZER.encode(HOSTILE), "toy")
    lines = ["".join(span.text for span in line).rstrip() for line in seen.experts().lines(width)]
    assert all(line.isprintable() and cell_len(line) <= width for line in lines)
    if n_expert > width:  # a list takes the place of the picture
        expert, weight = (part[0, 0, 0] for part in (seen.experts().routes.experts, seen.experts().routes.weights))
        assert any(f"{int(expert)} {float(weight):.0%}" in line for line in lines)


# -- encoders --

MASKED = CharTokenizer(sorted(set(HOSTILE)), ["[MASK]"])


def encoder(text: str, tokenizer: CharTokenizer = MASKED) -> Look:
    return Look(build("bert"), tokenizer, encode_for_encoder(tokenizer, text), "toy, step 3")


def test_an_encoder_hears_tokens_after_a_token() -> None:
    view = encoder("ab<>&ab<>").attention(1, 2)
    assert float(view.pattern[0, 1:].sum()) > 0.1
    drawn = repr(view)
    for query, row in enumerate(rows_of(drawn)[:9]):
        assert " " not in row[4:22]
        key = int(view.pattern[query].argmax())
        assert row.split()[-2:] == ["ab<>&ab<>"[key], f"{float(view.pattern[query, key]):.0%}"]
    assert "A token sees all tokens, before and after." in " ".join(drawn.split())
    html = view.html()
    assert '<g class="unseen"></g>' in html
    assert view.to_dict()["causal"] is False


def test_the_guesses_for_the_tokens_that_a_text_hides() -> None:
    seen = encoder("ab[MASK]>&ab[MASK]>")
    view = seen.guesses()
    expected = seen.model(torch.tensor([seen.ids]))[0, [2, 7]].softmax(dim=-1).topk(5)
    assert view.guesses.ids.tolist() == expected.indices.tolist()
    drawn = repr(view)
    assert "The text hides 2 tokens from toy, step 3." in drawn
    assert [row.split()[:2] for row in rows_of(drawn)] == [["2", "[MASK]"], ["7", "[MASK]"]]
    assert "its own" not in drawn
    assert [place["probability"] for place in view.to_dict()["places"]] == [None, None]


def test_the_guess_for_each_token() -> None:
    seen = encoder("ab<>&")
    view = seen.guesses()
    drawn = repr(view)
    right = sum(best[0]["id"] == id for best, id in zip(view.predictions, seen.ids, strict=True))
    assert f"The best guess is right for {right} of 5 tokens." in " ".join(drawn.split())
    assert "was hidden from toy, step 3 in turn" in " ".join(drawn.split())
    for row, own in zip(rows_of(drawn), view.guesses.own_probabilities.tolist(), strict=True):
        assert row.split()[2] == (f"{own:.0%}" if own >= 0.005 else "<1%")
    framed = CharTokenizer(sorted(set(HOSTILE)), ["[MASK]", "[CLS]", "[SEP]"])
    assert encoder("ab<>&", framed).guesses().guesses.positions == (1, 2, 3, 4, 5)  # [CLS] and [SEP] are never hidden
    plain = encoder("ab<>&", CharTokenizer(sorted(set(HOSTILE)), [])).guesses()
    assert "has no mask token, so the text is read as it is" in " ".join(repr(plain).split())


def test_the_lens_of_a_hidden_token() -> None:
    seen = encoder("ab[MASK]>&")
    assert seen.lens().position == 2 and seen.lens().following is None
    hidden = seen.lens(1)
    ids = torch.tensor([[id if at != 1 else MASKED.special_tokens["[MASK]"] for at, id in enumerate(seen.ids)]])
    assert hidden.following_probabilities is not None
    p = seen.model(ids)[0, 1].softmax(dim=-1)
    torch.testing.assert_close(hidden.following_probabilities[-1], p[seen.ids[1]].detach())
    assert "When does the model know the hidden token?" in repr(hidden) and "its own" in repr(hidden)
    with pytest.raises(UserError, match="there is no position 5"):
        seen.lens(5)


def test_what_makes_no_sense_is_refused_in_a_sentence() -> None:
    with pytest.raises(UserError, match=r"an encoder sees the whole text .* look at its guesses for hidden tokens"):
        encoder("ab").losses()
    with pytest.raises(UserError, match="predicts what comes next, and no hidden tokens: look at its lens"):
        look("gpt2").guesses()


@pytest.mark.parametrize("width", [40, 63, 120])
def test_an_encoder_fits_any_terminal(width: int) -> None:
    for text in (HOSTILE, HOSTILE[:9] + "[MASK]"):
        seen = encoder(text)
        for view in (seen.tokens(), seen.attention(), seen.lens(), seen.guesses()):
            for line in view.lines(width):
                drawn = "".join(span.text for span in line).rstrip()
                assert drawn.isprintable() and cell_len(drawn) <= width
            assert not Outline(view._repr_html_()).open


# -- encoder-decoders --

PAIRED = CharTokenizer(sorted(set(HOSTILE)), ["<|endoftext|>"])


def pair(architecture: str, source: str, target: str | None = None) -> PairLook:
    torch.manual_seed(0)
    found = find_architecture(architecture)
    sizes = {**SIZES, "vocab_size": PAIRED.vocab_size + 2} | ({"head_size": 8} if architecture == "t5" else {})
    model = found.model(found.config(**sizes))
    assert isinstance(model, EncoderDecoderModel)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = "norm" in name and name.endswith("weight")
            parameter.normal_(mean=1.0 if gain else 0.0, std=0.3)
    return PairLook(model.eval(), PAIRED, source, target, "toy, step 3")


@pytest.mark.parametrize("architecture", ["transformer", "t5"])
def test_cross_attention_has_the_source_across_and_the_target_down(architecture: str) -> None:
    seen = pair(architecture, "ab<>&", "ba<")
    view = seen.attention("cross", 1, 2)
    torch.testing.assert_close(view.pattern, seen.trace.cross[1, 2])
    assert view.pattern.shape == (4, 6)
    rows = rows_of(repr(view))[:4]
    assert [row.split()[1] for row in rows] == ["b", "a", "<", "<|endoftext…"]
    for query, row in enumerate(rows):
        blocks = row.split()[2]
        for sign, weight in zip(blocks[::2], view.pattern[query].tolist(), strict=True):
            assert sign == ("█" if weight >= 0.75 else "▓" if weight >= 0.5 else "▒" if weight >= 0.25
                            else "░" if weight >= 0.05 else ".")  # fmt: skip
        assert row.endswith(f"{float(view.pattern[query].max()):.0%}")
    html = view.html()
    assert '<g class="unseen"></g>' in html and html.count('text-anchor="end"') == 4
    assert html.count('transform="rotate') == 6
    found = json.loads(json.dumps(view.to_dict()))
    assert [token["text"] for token in found["source_tokens"]] == [*"ab<>&", "<|endoftext|>"]
    assert len(found["heads"]) == 6


def test_the_sharpest_head_of_cross_attention_is_drawn() -> None:
    seen = pair("transformer", "ab<>&", "ba<")
    sharp = seen.trace.cross.amax(dim=-1).mean(dim=-1)
    view = seen.attention()
    assert (view.layer, view.head) == divmod(int(sharp.argmax()), 3)
    assert seen.attention("cross", layer=0).layer == 0


def test_attention_within_the_source_and_within_the_target() -> None:
    seen = pair("transformer", "ab<>&", "ba<")
    within, target = seen.attention("encoder", 0, 1), seen.attention("decoder", 0, 1)
    torch.testing.assert_close(within.pattern, seen.trace.encoder[0, 1])
    torch.testing.assert_close(target.pattern, seen.trace.decoder[0, 1])
    assert "of the encoder of toy, step 3" in " ".join(repr(within).split())
    assert "A token sees all tokens" in repr(within) and "A token sees" not in repr(target)
    assert [token["text"] for token in target.tokens] == ["<|endoftext|>", *"ba<"]
    for part, message in (("cross", "there is no block 2: the cross-attention has 2 blocks"),
                          ("encoder", "there is no block 2: the encoder has 2 blocks")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            seen.attention(part, 2, 0)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="there is no head 3: a block has 3 heads"):
        seen.attention("cross", 0, 3)
    with pytest.raises(UserError, match="'middle'"):
        seen.attention("middle")  # type: ignore[arg-type]


def test_the_losses_of_a_target() -> None:
    seen = pair("transformer", "ab<>&", "ba<")
    view = seen.losses()
    expected = seen.trace.logits.log_softmax(dim=-1)[range(4), seen.trace.outputs]
    torch.testing.assert_close(view.losses, -expected)
    assert [token["text"] for token in view.tokens] == ["<|endoftext|>", *"ba<", "<|endoftext|>"]


@pytest.mark.parametrize("architecture", ["transformer", "t5"])
def test_the_lens_of_a_target_is_a_row_for_each_layer_of_the_decoder(architecture: str) -> None:
    seen = pair(architecture, "ab<>&", "ba<")
    view = seen.lens()
    said = " ".join(repr(view).split())
    assert view.position == 2 and "At step 2 of the target, after “ba”, in toy, step 3, for the source “ab<>&”." in said
    assert "The target has “<” there." in said
    assert view.layers == ["embedding", "block 0", "block 1"]
    last = seen.trace.logits[2].softmax(dim=-1)
    assert view.following_probabilities is not None
    assert float(view.following_probabilities[-1]) == pytest.approx(float(last[seen.trace.outputs[2]]), rel=1e-4)
    found = json.loads(json.dumps(seen.lens(3).to_dict()))
    assert found["next"]["text"] == "<|endoftext|>" and len(found["layers"]) == 3
    with pytest.raises(UserError, match="there is no step 4: the target is written in steps 0 to 3"):
        seen.lens(4)


@pytest.mark.parametrize("width", [40, 63, 120])
def test_a_pair_fits_any_terminal(width: int) -> None:
    seen = pair("transformer", HOSTILE, HOSTILE[:9])
    for view in (*(seen.attention(part) for part in PARTS), seen.losses(), seen.lens()):
        for line in view.lines(width):
            drawn = "".join(span.text for span in line).rstrip()
            assert drawn.isprintable() and cell_len(drawn) <= width
        assert not Outline(view._repr_html_()).open
