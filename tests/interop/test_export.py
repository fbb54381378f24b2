"""A run of ours, exported, is the same in `transformers`: ids, logits, greedy text; imported, it is itself again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toys import toy_model

import glassgpt as gg
from glassgpt.errors import UserError
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.generation.text import write
from glassgpt.interop.huggingface_export import write_hf_folder
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.ladder import LadderConfig
from glassgpt.models.ladder.s10_decoder import DecoderModel
from glassgpt.tokenizers import Tokenizer
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.char import CharTokenizer
from glassgpt.tokenizers.pretrained import PretrainedTokenizer

transformers = pytest.importorskip("transformers")

TEXT = "The quick brown fox jumps over the lazy dog.\nSphinx of black quartz, judge my vow!\n" * 3
KINDS = ["char", "bpe", "gpt2"]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, test_data) -> Tokenizer:
    if request.param == "gpt2":
        test_data("tiktoken")
        return PretrainedTokenizer.from_name("gpt2")
    if request.param == "bpe":
        return BPETokenizer.train(TEXT, 300, ["<|endoftext|>", "<|user|>"])
    return CharTokenizer.train(TEXT, ["<|user|>"])


@pytest.fixture(scope="module")
def exported(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> tuple[GPT2, Tokenizer, Path]:
    """A model with a padded vocabulary, its tokenizer and the folder that they went to."""
    model = toy_model(tokenizer.vocab_size, padding=47)
    folder = tmp_path_factory.mktemp("export")
    write_hf_folder(folder, model, tokenizer, "card")
    return model, tokenizer, folder


def test_the_logits_are_the_same(exported: tuple[GPT2, Tokenizer, Path]) -> None:
    model, tokenizer, folder = exported
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokens = torch.randint(tokenizer.vocab_size, (3, 48), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits = theirs(tokens).logits
        torch.testing.assert_close(logits, model(tokens), atol=1e-4, rtol=0)
    assert logits.size(-1) == tokenizer.vocab_size  # the padding was cut off
    assert theirs.lm_head.weight.data_ptr() == theirs.transformer.wte.weight.data_ptr()


def test_the_greedy_text_is_the_same(exported: tuple[GPT2, Tokenizer, Path]) -> None:
    model, tokenizer, folder = exported
    prompt = "The quick "
    pieces = write(model, tokenizer, tokenizer.encode(prompt), SamplingConfig(temperature=0.0), 20, torch.Generator())
    ours = prompt + "".join(pieces)
    writer = transformers.pipeline("text-generation", str(folder))
    written = writer(prompt, max_new_tokens=20, do_sample=False, clean_up_tokenization_spaces=False)  # version 4 would
    assert written[0]["generated_text"] == ours


def test_an_import_gives_it_back_bit_for_bit(exported: tuple[GPT2, Tokenizer, Path], tmp_path: Path) -> None:
    model, tokenizer, folder = exported
    run = gg.import_hf(folder, run=tmp_path / "run")
    assert run.tokenizer.to_dict() == tokenizer.to_dict()
    found, expected = run.model.state_dict(), model.state_dict()
    expected["token_embedding.weight"] = expected["token_embedding.weight"][: tokenizer.vocab_size]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    again = gg.export_hf(run, tmp_path / "again")
    for file in folder.iterdir():
        if file.name != "README.md":
            assert (again / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.heavy
@pytest.mark.slow
def test_124m_has_the_same_logits_and_comes_back(test_data, tmp_path: Path) -> None:
    test_data("tiktoken")
    tokenizer = PretrainedTokenizer.from_name("gpt2")
    torch.manual_seed(0)
    model = GPT2(GPT2Config(vocab_size=50304)).eval()
    write_hf_folder(tmp_path, model, tokenizer, "card")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert theirs.num_parameters() == 124_439_808  # of the published model: the padding was cut off
    tokens = torch.randint(50257, (1, 64), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, model(tokens)[..., :50257], atol=1e-4, rtol=0)
    back = gg.load_hf(tmp_path)
    (tmp_path / "model.safetensors").unlink()  # half a gigabyte, which pytest would keep
    assert torch.equal(back.token_embedding.weight, model.token_embedding.weight[:50257])
    assert torch.equal(back.blocks[11].mlp.down.weight, model.blocks[11].mlp.down.weight)


def test_a_section_of_the_ladder_is_refused(tmp_path: Path) -> None:
    model = DecoderModel(LadderConfig(vocab_size=3, block_size=8, n_layer=1, n_head=1, n_embd=8))
    with pytest.raises(UserError, match=r"only the architectures gpt2, .* can be exported"):
        write_hf_folder(tmp_path, model, CharTokenizer("abc"), "card")
