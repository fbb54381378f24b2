"""WordPiece, Unigram and BPE over characters: the ids and the text of the `tokenizers` library, for any text."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from glassgpt.interop.tokenizer_import import load_hf_tokenizer
from glassgpt.tokenizers import Tokenizer, load_tokenizer
from glassgpt.tokenizers.stream import StreamDecoder
from glassgpt.tokenizers.unigram import UnigramTokenizer

tokenizers = pytest.importorskip("tokenizers")

TEXT = [
    "It's the quick brown fox, isn't it? He'll jump over 12345 LAZY dogs; they'd RUN!",
    "Żółta gęś, naïve façade, Ångström und Straße: der Mensch ißt Brötchen.",
    "Привет, мир! こんにちは世界 今天天气很好。 안녕하세요 नमस्ते",
    "the the the fox fox jumps jumping jumped over the lazy dog and another lazy dog",
] * 3
BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SPM_SPECIALS = ["<unk>", "<s>", "</s>"]
# What the library treats in ways of its own: controls, marks old and new, ligatures, kinds of blanks, looks-alike.
PIECES = [
    *"aXé ßſİΣςK  \n\r\t\x00\x1c\x7f\x85\xa0\xad\u0301\u0340\u0345\u0600\u1715\u2003\u200b\u200d\u2028\u3000",
    *"'.,!?#_▁$`-~“…。字日𠀀\U0002b820豈①Ⅷ½ﬁ™ﾞ가가각क़्\u0bc6\u0897\u07fd\U00011938\U0001e08f\u1c89\ua7cb👩🇨",
    "the", "fox", "jump", "##ing", "##", "  ", "\r\n", "e\u0301", "क\u094dक\u093c\u0301", "™\u200d™\u0301",
    "u\u0300\u0301", "\ufeff", "\ufffd", "👩\u200d👩\u200d👧", "a" * 101, "ΑΣ",
    *BERT_SPECIALS, *SPM_SPECIALS, "<0x41>", "＜/s＞", "<extra_id_0>", "</s",
]  # fmt: skip
texts = st.one_of(st.lists(st.sampled_from(PIECES), max_size=25).map("".join), st.text(max_size=40))
many = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message of protocol buffers: their numbers and values."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = number()
        if key & 7 == 0:
            yield key >> 3, number()
            continue
        size = {1: 8, 5: 4}.get(key & 7) or number()
        yield key >> 3, data[at : at + size]
        at += size


def sentencepiece_model(**options: Any) -> bytes:
    library = pytest.importorskip("sentencepiece")
    file = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=file, hard_vocab_limit=False, minloglevel=2, **options
    )
    return file.getvalue()


def charsmap(rule: str) -> str:
    """The normalisation of a SentencePiece model, as tokenizer.json has it."""
    model = sentencepiece_model(vocab_size=120, model_type="unigram", normalization_rule_name=rule)
    return base64.b64encode(dict(fields(dict(fields(model))[3]))[2]).decode()


def wordpiece(**options: Any) -> Any:
    theirs = tokenizers.BertWordPieceTokenizer(**options)
    theirs.train_from_iterator(TEXT, vocab_size=220, min_frequency=1, show_progress=False)
    data = json.loads(theirs.to_str())
    ids = data["model"]["vocab"]
    data["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", ids["[SEP]"]], "cls": ["[CLS]", ids["[CLS]"]]}
    return data


def unigram(normalizer: Any, pre_tokenizer: Any, *, byte_fallback: bool = False) -> Any:
    theirs = tokenizers.Tokenizer(tokenizers.models.Unigram())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    theirs.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=160, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    theirs.train_from_iterator(TEXT, trainer)
    data = json.loads(theirs.to_str())
    vocab = [entry for entry in data["model"]["vocab"] if entry[0] not in ("™", "①")]
    if byte_fallback:
        vocab += [[f"<0x{byte:02X}>", -9.0] for byte in range(256)]
        data["decoder"] = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, data["decoder"]]}
    vocab += [[f"<extra_id_{number}>", 0.0] for number in (1, 0)]
    data["model"] = {"type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": byte_fallback}
    ids = {piece: id for id, (piece, _) in enumerate(vocab)}
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    data["added_tokens"] = [
        {"id": ids[name], "content": name, **plain, "special": True}
        for name in ("<pad>", "</s>", "<unk>", "<extra_id_1>", "<extra_id_0>")
    ]
    for token in data["added_tokens"][-2:]:
        token |= {"lstrip": True, "rstrip": True}
    data |= {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer}
    return data


def character_bpe(
    normalizer: Any, pre_tokenizer: Any, *, byte_fallback: bool = True, fuse_unk: bool = True, normalized: bool = False
) -> Any:
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    data_bytes = [f"<0x{byte:02X}>" for byte in range(256)] if byte_fallback else []
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=420 + len(data_bytes),
        special_tokens=[*SPM_SPECIALS, *data_bytes],
        show_progress=False,
        limit_alphabet=90,
    )
    theirs.train_from_iterator(TEXT, trainer)
    data = json.loads(theirs.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] in SPM_SPECIALS]
    for token in data["added_tokens"]:
        token["normalized"] = normalized
    data["model"] |= {"byte_fallback": byte_fallback, "fuse_unk": fuse_unk}
    steps: list[Any] = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}]
    steps += [{"type": "ByteFallback"}] if byte_fallback else []
    steps += [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    data |= {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer}
    data["decoder"] = {"type": "Sequence", "decoders": steps}
    data["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    return data


def metaspace(scheme: str, split: bool = True) -> Any:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}


LLAMA = {  # the normaliser of Llama 2's tokenizer.json
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ],
}


def t5(rule: str) -> Any:
    steps = [
        {"type": "Precompiled", "precompiled_charsmap": charsmap(rule)},
        {"type": "Strip", "strip_left": False, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
    ]
    return {"type": "Sequence", "normalizers": steps}


WORDS = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace("always")]}
KINDS = {
    "bert uncased": lambda: wordpiece(),
    "bert cased": lambda: wordpiece(lowercase=False),
    "bert uncased with accents": lambda: wordpiece(strip_accents=False),
    "bert cased without accents": lambda: wordpiece(lowercase=False, strip_accents=True),
    "bert without cleaning": lambda: wordpiece(clean_text=False, handle_chinese_chars=False),
    "t5": lambda: unigram(t5("nmt_nfkc"), metaspace("always")),
    "t5 in words": lambda: unigram(t5("nmt_nfkc")["normalizers"][0], WORDS),
    "t5 case folded": lambda: unigram(t5("nmt_nfkc_cf"), metaspace("first")),
    "unigram without a split": lambda: unigram({"type": "NFKC"}, metaspace("never", split=False)),
    "unigram with bytes": lambda: unigram(None, metaspace("always"), byte_fallback=True),
    "llama 2": lambda: character_bpe(LLAMA, None),
    "llama 1": lambda: character_bpe(LLAMA, None, normalized=True),
    "llama of transformers 5": lambda: character_bpe(None, metaspace("first", split=False)),
    "bpe in words": lambda: character_bpe({"type": "NFKC"}, metaspace("always"), byte_fallback=False),
    "bpe with each unknown character": lambda: character_bpe(
        {"type": "NFD"}, metaspace("never", split=False), byte_fallback=False, fuse_unk=False
    ),
    "bpe composed": lambda: character_bpe({"type": "NFC"}, None, byte_fallback=False),
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any, Path]:
    """Our tokenizer, theirs and the folder of both: the library's tokenizer.json, and ours after a round trip."""
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "tokenizer.json").write_text(json.dumps(KINDS[request.param]()), encoding="utf-8")
    load_hf_tokenizer(folder).save(folder / "ours.json")
    return load_tokenizer(folder / "ours.json"), tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), folder


@many
@given(text=texts)
@example(text="")
@example(text=" ")
@example(text="\x00")
@example(text="<s> a<s>b </s>")
def test_the_ids_of_any_text_are_the_librarys(pair: tuple[Any, Any, Path], text: str) -> None:
    ours, theirs, _ = pair
    theirs.encode_special_tokens = False
    ids = theirs.encode(text, add_special_tokens=False).ids
    assert ours.encode(text, allowed_special="all") == ids
    if not any("normalized" in options for options in ours._options.values()):  # of these, it shows another name
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)
    decoder = StreamDecoder(ours)
    assert "".join(map(decoder.feed, ids)) + decoder.flush() == ours.decode(ids)


@many
@given(text=texts)
def test_the_text_of_special_tokens_is_ordinary_text(pair: tuple[Tokenizer, Any, Path], text: str) -> None:
    ours, theirs, _ = pair
    theirs.encode_special_tokens = True
    ids = ours.encode(text)
    assert ours.encode_to_numpy(text).tolist() == ids
    specials = set(ours.special_tokens.values()) - {ours.special_tokens.get("[UNK]", ours.special_tokens.get("<unk>"))}
    assert not specials & set(ids)
    their_ids = theirs.encode(text, add_special_tokens=False).ids
    if isinstance(ours, UnigramTokenizer) and not {"</s>", "<pad>", "<unk>"}.isdisjoint(
        {name for name in ours.special_tokens if name in ours._normalize(text)}
    ):
        return  # the library's Unigram finds control pieces in ordinary text, SentencePiece and we do not
    if not (isinstance(ours, UnigramTokenizer) and "<extra_id_0>" in text):
        assert ids == their_ids
