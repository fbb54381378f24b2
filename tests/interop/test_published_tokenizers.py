"""tokenizer.json files with the steps of Qwen3's, Llama 3's and GPT-oss's: the ids of the `tokenizers` library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import glassgpt as gg
from glassgpt.errors import UserError
from glassgpt.interop.huggingface_export import hf_config, write_hf_model
from glassgpt.interop.layouts import layout_of
from glassgpt.interop.tokenizer_export import special_tokens_map, tokenizer_json
from glassgpt.interop.tokenizer_import import load_hf_tokenizer
from glassgpt.models.qwen3 import Qwen3, Qwen3Config
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.patterns import O200K, safe_slices

tokenizers = pytest.importorskip("tokenizers")

TEXT = [
    "It's the quick brown fox, isn't it? He'll jump over 12345 LAZY dogs;\tthey'd RUN!\n\n  <think>\nÉcole, café\n",
    "Żółta gęś, naïve façade, Ångström: <tool_call> Привет, мир! 今天天气 안녕하세요 </tool_call>\r\n",
] * 4
DIGITS = r"\p{N}{1,3}"
# https://huggingface.co/meta-llama/Llama-3.2-1B/blob/main/tokenizer.json
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace(DIGITS, r"\p{N}")  # https://huggingface.co/Qwen/Qwen3-0.6B/blob/main/tokenizer.json
NAMES = {  # special ones, and those that are not
    "qwen3": (["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
              ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<think>", "</think>"]),
    "llama3": (["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|eot_id|>"], []),
    "gpt_oss": (["<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>",
                 "<|end|>", "<|message|>", "<|call|>"], []),
}  # fmt: skip
PATTERN_NAMES = {"qwen3": "qwen", "llama3": "llama3", "gpt_oss": "o200k"}
# Besides the usual ones: accents that NFC joins or reorders, Hangul in parts, characters that NFC replaces, and parts
# of tokens.
HOSTILE = [
    *"abXYZ  \n\n\r\t'.,!?<|>_-012345ſéßﬆKİǅ½日ا\u00a0\u2000\u2003\x85\ufeff\u0301\u0323\u0338\u0344\u212b\u2126\u037e;e",  # noqa: E501
    "\u1100\u1161", "\u11a8", "가", "'s", "'LL", "'Re", "  ", "\r\n", "👩\u200d👧", "jumps", " over", "ie", "café",
    "<think", "<thi", "nk>", "<|im_", *{name for both in NAMES.values() for names in both for name in names},
]  # fmt: skip


def build(kind: str) -> Any:
    """A small tokenizer of the library, with the steps of the published one."""
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

    pattern = {"qwen3": QWEN, "llama3": LLAMA3, "gpt_oss": O200K}[kind]
    built = tokenizers.Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    if kind == "qwen3":
        built.normalizer = normalizers.NFC()
    built.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    built.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=360, initial_alphabet=alphabet, show_progress=False))
    if kind != "qwen3":  # words that no merges make
        data = json.loads(built.to_str())
        data["model"]["ignore_merges"] = True
        free = len(data["model"]["vocab"])
        data["model"]["vocab"] |= {word: free + n for n, word in enumerate(("Ġzebra", "ebras", "jumpsover"))}
        built = tokenizers.Tokenizer.from_str(json.dumps(data))
    special, others = NAMES[kind]
    built.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in special])
    built.add_tokens([AddedToken(name, normalized=False) for name in others])
    bytes_alone = processors.ByteLevel(trim_offsets=False)
    if kind == "llama3":
        bos = (special[0], built.token_to_id(special[0]))
        template = processors.TemplateProcessing(f"{bos[0]} $A", f"{bos[0]} $A {bos[0]}:1 $B:1", [bos])
        built.post_processor = processors.Sequence([bytes_alone, template])
    else:
        built.post_processor = bytes_alone
    return built


@pytest.fixture(scope="module", params=NAMES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, BPETokenizer, str]:
    folder = tmp_path_factory.mktemp("tokenizer")
    theirs = build(request.param)
    theirs.save(str(folder / "tokenizer.json"))
    ours = load_hf_tokenizer(folder)
    assert isinstance(ours, BPETokenizer)
    return theirs, ours, request.param


def ids_of(theirs: Any, text: str, *, special_as_text: bool) -> list[int]:
    theirs.encode_special_tokens = special_as_text
    return theirs.encode(text, add_special_tokens=False).ids


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.sampled_from([*HOSTILE, " zebra", "ebras", "jumpsover"]), max_size=40))
@example(pieces=[])
@example(pieces=["e", "\u0301", "\u0323", "<think>", "\u0301"])
@example(pieces=["1", "2", "3", "4", "<", "\u0338", "<think>", "\n", " ", "\n"])
def test_the_ids_are_those_of_the_library(pair: tuple[Any, BPETokenizer, str], pieces: list[str]) -> None:
    theirs, ours, _ = pair
    text = "".join(pieces)
    expected = ids_of(theirs, text, special_as_text=False)
    assert ours.encode(text, allowed_special="all") == expected
    assert list(ours.encode_iterable(pieces, allowed_special="all")) == expected
    plain = ids_of(theirs, text, special_as_text=True)
    assert ours.encode(text) == plain
    assert ours.encode_to_numpy(text).tolist() == plain
    for size in (1, 7):
        parts = list(safe_slices(text, size, ours.safe_cut))
        assert [id for part in parts for id in ours.encode(part)] == plain
    assert not {ours.special_tokens[name] for name in ours.special_tokens.keys() - ours.found_in_text} & {*plain}
    assert ours.decode(plain) == theirs.decode(plain, skip_special_tokens=False)
    assert b"".join(map(ours.token_bytes, plain)).decode(errors="replace") == ours.decode(plain)


def test_what_is_read_is_written_again(pair: tuple[Any, BPETokenizer, str]) -> None:
    theirs, ours, kind = pair
    assert ours.pattern == PATTERN_NAMES[kind]
    assert ours.bos_token == ("<|begin_of_text|>" if kind == "llama3" else None)
    assert (ours.normal_form, ours.found_in_text) == ("NFC" if kind == "qwen3" else None, frozenset(NAMES[kind][1]))
    again = BPETokenizer.from_dict(json.loads(json.dumps(ours.to_dict())))
    assert again.to_dict() == ours.to_dict()
    out = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(again)))
    text = "".join(HOSTILE)
    for special_as_text in (True, False):
        expected = ids_of(theirs, text, special_as_text=special_as_text)
        assert ids_of(out, text, special_as_text=special_as_text) == expected
    assert out.encode("a").ids == theirs.encode("a").ids  # with what is written before it
    assert not ours.found_in_text.intersection(special_tokens_map(ours).get("additional_special_tokens", []))


def test_a_model_may_have_more_rows_than_the_tokenizer_has_ids(
    pair: tuple[Any, BPETokenizer, str], tmp_path: Path
) -> None:
    theirs, ours, _ = pair
    torch.manual_seed(0)
    model = Qwen3(Qwen3Config(ours.vocab_size + 9, 32, 1, 2, 8, head_size=4, n_hidden=16))
    write_hf_model(tmp_path, model)
    theirs.save(str(tmp_path / "tokenizer.json"))
    run = gg.import_hf(tmp_path, run=tmp_path / "run")
    assert run.config.model.vocab_size == ours.vocab_size + 9
    text = "He'll <think> cafe\u0301"
    assert run.tokenizer.encode(text) == ours.encode(text)
    assert run.generate(text, max_new_tokens=3, seed=1).startswith(text)
    fewer = hf_config(layout_of(model), model.config, None) | {"vocab_size": ours.vocab_size - 1}
    model = Qwen3(Qwen3Config(ours.vocab_size - 1, 32, 1, 2, 8, head_size=4, n_hidden=16))
    write_hf_model(tmp_path, model)
    assert json.loads((tmp_path / "config.json").read_text()) == fewer
    with pytest.raises(UserError, match=rf"the tokenizer has {ours.vocab_size} ids, the model {ours.vocab_size - 1}:"):
        gg.import_hf(tmp_path, run=tmp_path / "other")


def test_vocab_json_of_another_class_is_refused(tmp_path: Path) -> None:
    """Qwen2Tokenizer has GPT-2's two files and another split: the ids of numbers would be wrong."""
    data = json.loads(build("qwen3").to_str())
    (tmp_path / "vocab.json").write_text(json.dumps(data["model"]["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(" ".join(pair) for pair in data["model"]["merges"]))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Qwen2Tokenizer"}))
    with pytest.raises(UserError, match="Qwen2Tokenizer does not use this file as it is"):
        load_hf_tokenizer(tmp_path)
