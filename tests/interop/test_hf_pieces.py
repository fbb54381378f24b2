"""WordPiece, Unigram and BPE over characters: the ids and the text of the `tokenizers` library, for any text."""

from __future__ import annotations

import base64
import io
import json
import random
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import glassgpt as gg
from glassgpt.errors import UserError
from glassgpt.interop.pieces_import import character_bpe_from_json
from glassgpt.interop.tokenizer_export import special_tokens_map, tokenizer_config, tokenizer_json
from glassgpt.interop.tokenizer_import import load_hf_tokenizer
from glassgpt.tokenizers import Tokenizer, load_tokenizer, open_tokenizer
from glassgpt.tokenizers.normalizers import Charsmap
from glassgpt.tokenizers.patterns import safe_slices
from glassgpt.tokenizers.spm import SentencePieceTokenizer
from glassgpt.tokenizers.stream import StreamDecoder
from glassgpt.tokenizers.unigram import UnigramTokenizer
from glassgpt.tokenizers.wordpiece import WordPieceTokenizer

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


@cache
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


def write(folder: Path, tokenizer: Tokenizer) -> Path:
    """The folder that an export writes, without the weights."""
    files = {
        "tokenizer.json": tokenizer_json(tokenizer),
        "tokenizer_config.json": tokenizer_config(tokenizer, 10**9),
        "special_tokens_map.json": special_tokens_map(tokenizer),
        "config.json": {"model_type": "gpt2"},
    }
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_an_export_has_the_same_ids_in_transformers_and_comes_back_as_it_was(
    pair: tuple[Tokenizer, Any, Path],
) -> None:
    transformers = pytest.importorskip("transformers")
    ours, theirs, folder = pair
    theirs.encode_special_tokens = False
    out = write(folder / "out", ours)
    assert load_hf_tokenizer(out).to_dict() == ours.to_dict()
    loaded = transformers.AutoTokenizer.from_pretrained(out)
    draw = random.Random(0)
    for _ in range(150):
        text = "".join(draw.choices(PIECES, k=draw.randint(0, 40)))
        for special in (False, True):
            ids = loaded.encode(text, split_special_tokens=False, add_special_tokens=special)
            assert ids == theirs.encode(text, add_special_tokens=special).ids
        assert loaded.decode(ids) == theirs.decode(ids, skip_special_tokens=False)
    assert set(loaded.all_special_tokens) == set(ours.special_tokens)


@pytest.mark.skipif(
    tokenizers.__version__.startswith("0.22."), reason="tokenizers 0.22 has the graphemes of an older Unicode"
)
@pytest.mark.parametrize(
    "around", ["A{}b", "A{}\u0301b", "{}A\u0301b", "x{}\u0340\u0300b", "ﾊ{}b", "ﬁ\u200d{}b", "가{}b"]
)
def test_a_charsmap_replaces_the_librarys_graphemes(around: str) -> None:
    """Characters of all kinds in places where they may belong to the character before or after."""
    data = base64.b64decode(charsmap("nmt_nfkc_cf"))
    codes = (*range(0x3400), *range(0xA000, 0xAC80), *range(0xD780, 0xD800), *range(0xF900, 0x12000),
             *range(0x16000, 0x17000), *range(0x1B000, 0x20000), *range(0xE0000, 0xE0200))  # fmt: skip
    text = "".join(around.format(chr(code)) for code in codes)
    assert Charsmap(data)(text) == tokenizers.normalizers.Precompiled(data).normalize_str(text)


@pytest.mark.parametrize("size", [0, 3, 4, 1000])
def test_a_damaged_charsmap_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="charsmap is"):
        Charsmap(base64.b64decode(charsmap("nmt_nfkc"))[:size])("①")


def bert_folder(folder: Path, settings: dict[str, Any]) -> Path:
    vocab = wordpiece(lowercase=False)["model"]["vocab"]
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in sorted(vocab, key=vocab.__getitem__)))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **settings}))
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_lower_case": False},
        {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False},
        {"do_lower_case": False, "strip_accents": True, "unk_token": {"__type": "AddedToken", "content": "[UNK]"}},
    ],
)
def test_vocab_txt_has_the_ids_of_transformers(tmp_path: Path, settings: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertTokenizerFast.from_pretrained(bert_folder(tmp_path, settings))
    ours = load_hf_tokenizer(tmp_path)
    assert isinstance(ours, WordPieceTokenizer)
    assert list(ours.special_tokens) == BERT_SPECIALS
    cls, sep = ours.special_tokens["[CLS]"], ours.special_tokens["[SEP]"]
    draw = random.Random(0)
    for _ in range(300):
        text = "".join(draw.choices(PIECES, k=draw.randint(0, 40)))
        assert theirs.encode(text) == [cls, *ours.encode(text, allowed_special="all"), sep]
        slices = list(safe_slices(text, 5, ours.safe_cut))
        assert [id for part in slices for id in ours.encode(part)] == ours.encode(text)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tokenizer_class": "BertJapaneseTokenizer"}, "BertJapaneseTokenizer does not use this file as it is"),
        ({"do_basic_tokenize": False}, "changes how words are split"),
        ({"unk_token": "[MISSING]"}, r"lacks '\[MISSING\]', which stands for unknown words"),
        (
            {"added_tokens_decoder": {"7": {"content": "the", "special": False}}},
            "added token 'the' is not special: it would match in ordinary text",
        ),
        (
            {"added_tokens_decoder": {"999": {"content": "<x>", "special": True, "single_word": True}}},
            "'<x>' uses single_word",
        ),
    ],
)
def test_settings_beside_vocab_txt_that_would_give_other_ids(
    tmp_path: Path, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=rf"vocab\.txt cannot be used: .*{told}"):
        load_hf_tokenizer(bert_folder(tmp_path, settings))


def change_model(**fields: Any) -> Any:
    return lambda data: data["model"].update(fields)


@pytest.mark.parametrize(
    ("kind", "change", "told"),
    [
        ("bert uncased", lambda data: data.update(decoder=None), "its decoder is not that of WordPiece with '##'"),
        ("bert uncased", lambda data: data.update(normalizer={"type": "Nmt"}), r"normalises text \(Nmt\) in a way"),
        (
            "bert uncased",
            lambda data: data.update(pre_tokenizer={"type": "Whitespace"}),
            r"pre-tokenizer \(Whitespace\)",
        ),
        ("bert uncased", lambda data: data["added_tokens"][0].update(special=False), r"'\[PAD\]' is not special"),
        ("bert uncased", lambda data: data["added_tokens"][0].update(id=77), "has id 77, but the library gives it 0"),
        ("bert uncased", lambda data: data["added_tokens"][0].update(content="fox"), "has id 0, but the library"),
        ("bert uncased", change_model(unk_token="[?]"), r"lacks '\[\?\]', which stands for unknown words"),
        ("llama 2", change_model(dropout=0.1), "its model uses dropout"),
        ("llama 2", change_model(end_of_word_suffix="</w>"), "its model uses end_of_word_suffix"),
        ("llama 2", change_model(merges=[["x", "?"]]), "merge 0 makes 'x\\?', which is not in the vocabulary"),
        ("llama 2", lambda data: data["model"]["vocab"].pop("<0x1F>"), "lacks the byte <0x1F>"),
        ("llama 2", lambda data: data["decoder"]["decoders"].pop(2), "its decoder .* is not known here"),
        (
            "llama 2",
            lambda data: data.update(post_processor={"type": "X"}),
            r"its post-processor \(X\) is not known here",
        ),
        ("t5", change_model(unk_id=10**6), "the id of unknown characters is 1000000"),
        ("t5", lambda data: data["normalizer"]["normalizers"][2].update(pattern={"Regex": "a+"}), "replaces a pattern"),
        ("t5", lambda data: data["pre_tokenizer"].update(replacement="_"), "writes '_' for a space"),
        ("t5", lambda data: data["normalizer"]["normalizers"][0].update(precompiled_charsmap="AAAA"), "cut off"),
    ],
)
def test_what_would_give_other_ids_is_refused(tmp_path: Path, kind: str, change: Any, told: str) -> None:
    data = KINDS[kind]()
    change(data)
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=rf"tokenizer\.json cannot be used: .*{told}"):
        load_hf_tokenizer(tmp_path)


def test_settings_that_contradict_tokenizer_json_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(wordpiece()))
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    with pytest.raises(UserError, match=r"its lowercase is True, but tokenizer_config\.json has another do_lower_case"):
        load_hf_tokenizer(tmp_path)


def spm_folder(folder: Path, name: str, settings: dict[str, Any] | None, **options: Any) -> bytes:
    model = sentencepiece_model(**options)
    (folder / name).write_bytes(model)
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return model


def test_a_folder_with_t5s_model_has_its_extra_ids(tmp_path: Path) -> None:
    options = {"vocab_size": 120, "model_type": "unigram", "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    spm_folder(tmp_path, "spiece.model", {"tokenizer_class": "T5Tokenizer", "extra_ids": 3}, **options)
    ours = load_hf_tokenizer(tmp_path)
    assert isinstance(ours, SentencePieceTokenizer)
    size = ours.vocab_size - 3
    extra = {f"<extra_id_{number}>": size + 2 - number for number in range(3)}
    assert ours.special_tokens == {"<pad>": 0, "</s>": 1, **extra}
    ids = ours.encode("the fox<extra_id_0> dog", allowed_special="all")
    assert size + 2 in ids
    assert ours.decode(ids) == "the fox<extra_id_0> dog"
    assert size + 2 not in ours.encode("the fox<extra_id_0> dog")
    ours.save(tmp_path / "ours.json")
    again = load_tokenizer(tmp_path / "ours.json")
    assert again.to_dict() == ours.to_dict()
    assert again.encode("the fox", allowed_special="all") == ours.encode("the fox")


def test_a_folder_with_llamas_model_begins_texts_with_bos(tmp_path: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": {"content": "<s>"}}
    options = {"vocab_size": 420, "model_type": "bpe", "byte_fallback": True}
    model = spm_folder(tmp_path, "tokenizer.model", settings, **options)
    ours = load_hf_tokenizer(tmp_path)
    assert (ours.bos_token, ours.special_tokens) == ("<s>", {"<s>": 1, "</s>": 2})
    reference = SentencePieceProcessor(model_proto=model)
    for text in (*TEXT, "字 é\n\n  x"):
        assert ours.encode(text) == reference.encode(text)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "add_bos_token": False}))
    assert load_hf_tokenizer(tmp_path).bos_token is None


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("sentencepiece.bpe.model", None, "number the pieces anew"),
        ("sentencepiece.bpe.model", {"tokenizer_class": "XLMRobertaTokenizer"}, "does not use this file as it is"),
        ("spiece.model", {"tokenizer_class": "AlbertTokenizer"}, "AlbertTokenizer does not use this file as it is"),
    ],
)
def test_models_whose_ids_transformers_changes_are_refused(
    tmp_path: Path, name: str, settings: dict[str, Any] | None, told: str
) -> None:
    spm_folder(tmp_path, name, settings, vocab_size=120)
    with pytest.raises(UserError, match=rf"{name} cannot be used: .*{told}"):
        load_hf_tokenizer(tmp_path)


def test_a_missing_package_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    (tmp_path / "spiece.model").write_bytes(b"")
    with pytest.raises(UserError, match=r"pip install 'glassgpt\[sentencepiece\]'"):
        load_hf_tokenizer(tmp_path)


def test_long_texts_are_encoded_in_little_time() -> None:
    """A text without words is one word: twice as long must not take four times as long."""
    ours = character_bpe_from_json(character_bpe(LLAMA, None))
    assert len(ours.encode("the lazy dog jumps " * 20_000)) > 20_000
    assert len(ours.encode("x" * 100_000)) > 1000
    assert ours.encode("jump" * 10_000)[-8:] == ours.encode("jump" * 20_000)[-8:]


def test_an_imported_run_has_its_tokenizer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    source = tmp_path / "source"
    data = character_bpe(LLAMA, None)
    size = len(data["model"]["vocab"]) + 3  # a model may have rows that no id of its tokenizer uses
    config = transformers.LlamaConfig(
        vocab_size=size, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=32,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(source)
    (source / "tokenizer.json").write_text(json.dumps(data))
    run = gg.import_hf(source, run=tmp_path / "run")
    assert run.tokenizer.to_dict() == load_hf_tokenizer(source).to_dict()
    assert run.tokenizer.bos_token == "<s>"
    assert run.config.tokenizer.name == "character_bpe"
    assert gg.load(tmp_path / "run").tokenizer.encode("the fox") == run.tokenizer.encode("the fox")
    with pytest.raises(UserError, match="a 'character_bpe' tokenizer comes with an imported model"):
        open_tokenizer("character_bpe")
