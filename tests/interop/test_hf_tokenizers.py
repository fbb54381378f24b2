"""Tokenizers to and from the files of `transformers`: the same ids for any text, there and back, or a refusal."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from versions import EXTRA_SPECIAL_TOKENS

from glassgpt.errors import UserError
from glassgpt.interop.tokenizer_export import special_tokens_map, tokenizer_config, tokenizer_json
from glassgpt.interop.tokenizer_import import LLAMA3_PUBLISHED, load_hf_tokenizer
from glassgpt.tokenizers import Tokenizer
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.char import CharTokenizer
from glassgpt.tokenizers.patterns import O200K
from glassgpt.tokenizers.pretrained import PretrainedTokenizer
from glassgpt.tokenizers.printable import BYTE_ORDER, to_printable
from glassgpt.tokenizers.spm import SentencePieceTokenizer

transformers = pytest.importorskip("transformers")

TEXT = "It's the quick brown fox, isn't it?\n\n  He'll jump over 12345 LAZY dogs;\tthey'd RUN!\n" * 4
SPECIALS = ["<|endoftext|>", "<|user|>", "<|user|><|end|>"]
# Contractions in both cases, every kind of blank, digits, letters that fold, marks, joined emoji, special tokens.
HOSTILE = [
    *"abXYZ  \n\n\r\t'.,!?<|>_-0123456789sStTmMdD\u00a0\u2003\u2028\x85\x00\ufeff\u0301éſßﬆKİǅⅧ½日本ا",
    "'s", "'LL", "'Re", "  ", "\r\n", "😀", "👩\u200d👩\u200d👧", *SPECIALS, "<|user", "|>",
]  # fmt: skip
KINDS = ["char", "bpe", "bpe cl100k", "bpe llama3", "bpe o200k", "gpt2", "cl100k_base", "o200k_base"]


def published(name: str, ranks: dict[bytes, int], monkeypatch: pytest.MonkeyPatch) -> PretrainedTokenizer:
    """OpenAI's split pattern and special tokens of that name, with gaps between their ids, over another vocabulary."""
    openai = pytest.importorskip("tiktoken_ext.openai_public")
    monkeypatch.setattr(openai, "load_tiktoken_bpe", lambda *arguments, **named: ranks)
    parts = getattr(openai, name)()
    encoding = tiktoken.Encoding(
        name, pat_str=parts["pat_str"], mergeable_ranks=ranks, special_tokens=parts["special_tokens"]
    )
    return PretrainedTokenizer(encoding, parts["special_tokens"])


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, test_data) -> Tokenizer:
    kind = request.param
    if kind == "char":
        return CharTokenizer.train("".join(HOSTILE), SPECIALS)
    if kind.startswith("bpe"):
        return BPETokenizer.train(TEXT, 330, SPECIALS, pattern=kind.removeprefix("bpe").strip() or "gpt2")
    if kind == "gpt2":
        test_data("tiktoken")
        return PretrainedTokenizer.from_name("gpt2")
    learned = BPETokenizer.train(TEXT, 330)
    ranks = {token: id for id, token in learned.vocab.items()}
    with pytest.MonkeyPatch.context() as patch:
        return published(kind, ranks, patch)


def write(folder: Path, tokenizer: Tokenizer) -> Path:
    files = {
        "tokenizer.json": tokenizer_json(tokenizer),
        "tokenizer_config.json": tokenizer_config(tokenizer, 10**9),
        "special_tokens_map.json": special_tokens_map(tokenizer),
        "config.json": {"model_type": "gpt2"},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def theirs(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return transformers.AutoTokenizer.from_pretrained(write(tmp_path_factory.mktemp("tokenizer"), tokenizer))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.sampled_from(HOSTILE), max_size=40))
@example(pieces=[])
@example(pieces=[" "] * 40)
@example(pieces=["\n", " ", " ", "\n"])
def test_the_ids_of_hostile_text_are_the_same(tokenizer: Tokenizer, theirs: Any, pieces: list[str]) -> None:
    text = "".join(pieces)
    ids = tokenizer.encode(text)
    assert theirs.encode(text) == ids
    assert theirs.decode(ids) == tokenizer.decode(ids)
    with_specials = theirs.encode(text, split_special_tokens=False)
    # Where one special token begins another ours takes the longer, theirs too.
    assert with_specials == tokenizer.encode(text, allowed_special="all")


def test_the_special_tokens_have_their_roles(tokenizer: Tokenizer, theirs: Any) -> None:
    assert set(theirs.all_special_tokens) == set(tokenizer.special_tokens)
    assert {name: theirs.convert_tokens_to_ids(name) for name in tokenizer.special_tokens} == tokenizer.special_tokens
    assert theirs.eos_token == ("<|endoftext|>" if "<|endoftext|>" in tokenizer.special_tokens else None)
    ids = [*tokenizer.encode("a"), *tokenizer.special_tokens.values()]
    assert theirs.decode(ids, skip_special_tokens=True) == "a"


def test_a_character_that_is_not_in_the_alphabet_is_refused_there_too(tmp_path: Path) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(write(tmp_path, CharTokenizer("abc")))
    with pytest.raises(Exception, match="WordLevel error"):  # the library has no class of its own for it
        theirs.encode("abx")


def test_it_comes_back_as_it_was(tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = write(tmp_path, tokenizer)
    if isinstance(tokenizer, CharTokenizer):
        with pytest.raises(UserError, match=r'tokenizer\.json cannot be used: its model is "WordLevel", but only'):
            load_hf_tokenizer(folder)
    else:
        back = load_hf_tokenizer(folder)
        assert back.special_tokens == tokenizer.special_tokens
        text = "".join(random.Random(1).choices(HOSTILE, k=2000))
        assert back.encode(text) == tokenizer.encode(text)
        if tokenizer.name in ("bpe", "gpt2"):
            assert back.to_dict() == tokenizer.to_dict()


def theirs_as_trained(folder: Path) -> Path:
    """A byte-level BPE that their own library trained and saved: special tokens first, then the bytes."""
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    model.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<|endoftext|>", "<pad>"], initial_alphabet=alphabet, show_progress=False
    )
    model.train_from_iterator([TEXT], trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=model, eos_token="<|endoftext|>", pad_token="<pad>")
    fast.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("layout", ["tokenizer.json", "vocab.json and merges.txt"])
def test_a_tokenizer_of_theirs_has_their_ids_here(tmp_path: Path, layout: str) -> None:
    folder = theirs_as_trained(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    if layout != "tokenizer.json":
        model = json.loads((folder / "tokenizer.json").read_text())["model"]
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
        merges = "\n".join(" ".join(pair) for pair in model["merges"])
        (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    ours = load_hf_tokenizer(folder)
    assert ours.special_tokens == {"<|endoftext|>": 0, "<pad>": 1}
    draw = random.Random(0)
    for _ in range(300):
        text = "".join(draw.choices(HOSTILE, k=draw.randint(0, 40)))
        assert ours.encode(text, allowed_special="all") == theirs.encode(text)
        assert ours.encode(text) == theirs.encode(text, split_special_tokens=True)


def test_the_files_of_gpt2_give_gpt2(test_data, tmp_path: Path) -> None:
    """OpenAI's encoder.json and vocab.bpe, which the hub has as vocab.json and merges.txt."""
    cache = test_data("tiktoken")
    for file in cache.iterdir():
        data = file.read_bytes()  # the other encodings of the cache begin with neither
        if data.startswith((b"{", b"#version")):
            (tmp_path / ("vocab.json" if data.startswith(b"{") else "merges.txt")).write_bytes(data)
    ours = load_hf_tokenizer(tmp_path)
    assert ours.to_dict() == PretrainedTokenizer.from_name("gpt2").to_dict()
    (tmp_path / "added_tokens.json").write_text('{"<pad>": 50257}')
    more = load_hf_tokenizer(tmp_path)
    assert (more.name, more.vocab_size) == ("bpe", 50258)
    assert more.encode("Hello, world") == ours.encode("Hello, world")


def test_the_published_split_of_llama_3_is_known(tmp_path: Path) -> None:
    ours = BPETokenizer.train(TEXT, 330, pattern="llama3")
    content = tokenizer_json(ours)
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = LLAMA3_PUBLISHED
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert load_hf_tokenizer(tmp_path).to_dict() == ours.to_dict()


LLAMA_LIKE = BPETokenizer.train(TEXT, 330, ["<|endoftext|>", "<|user|>"], pattern="llama3")


def begin_with(*names: str, after: tuple[str, ...] = (), ids: list[int] | None = None) -> dict[str, Any]:
    """The post-processor of Llama 3's tokenizer.json, with these special tokens before and after a text."""
    parts = [{"SpecialToken": {"id": name, "type_id": 0}} for name in names]
    parts += [{"Sequence": {"id": "A", "type_id": 0}}]
    parts += [{"SpecialToken": {"id": name, "type_id": 0}} for name in after]
    template = {
        "type": "TemplateProcessing",
        "single": parts,
        "pair": [*parts, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            name: {"id": name, "ids": ids or [LLAMA_LIKE.special_tokens[name]], "tokens": [name]}
            for name in {*names, *after}
        },
    }
    offsets = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    return {"type": "Sequence", "processors": [offsets, template]}


def with_post_processor(folder: Path, post_processor: dict[str, Any]) -> Path:
    content = tokenizer_json(LLAMA_LIKE)
    (folder / "tokenizer.json").write_text(json.dumps({**content, "post_processor": post_processor}))
    return folder


@pytest.mark.parametrize("bos", ["<|endoftext|>", "<|user|>"])
def test_a_token_at_the_start_of_every_text_is_kept_apart_and_comes_back(tmp_path: Path, bos: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_file(str(with_post_processor(tmp_path, begin_with(bos)) / "tokenizer.json"))
    ours = load_hf_tokenizer(tmp_path)
    assert isinstance(ours, BPETokenizer)
    assert ours.bos_token == bos
    assert BPETokenizer.from_dict(ours.to_dict()).to_dict() == ours.to_dict()
    exported = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(ours)))
    draw = random.Random(0)
    for _ in range(200):
        text = "".join(draw.choices(HOSTILE, k=draw.randint(0, 40)))
        ids = ours.encode(text, allowed_special="all")
        assert theirs.encode(text, add_special_tokens=False).ids == ids
        for tokenizer in (theirs, exported):
            assert tokenizer.encode(text, add_special_tokens=True).ids == [ours.special_tokens[bos], *ids]
    # And transformers, with all that an export writes.
    out = tmp_path / "out"
    out.mkdir()
    loaded = transformers.AutoTokenizer.from_pretrained(write(out, ours))
    assert loaded.encode("Hello") == [ours.special_tokens[bos], *ours.encode("Hello")]
    assert loaded.bos_token == bos
    back = load_hf_tokenizer(out)
    assert back.to_dict() == ours.to_dict()


@pytest.mark.parametrize(
    ("post_processor", "told"),
    [
        (begin_with("<|user|>", after=("<|endoftext|>",)), "TemplateProcessing.* not only one at its start"),
        (begin_with(after=("<|endoftext|>",)), "not only one at its start"),
        (begin_with("<|endoftext|>", "<|user|>"), "not only one at its start"),
        (begin_with("<|user|>", ids=[5]), r"adds '<\|user\|>' with ids \[5\], which is none of its special tokens"),
        ({"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0]}, "RobertaProcessing"),
    ],
)
def test_other_tokens_that_are_added_to_a_text_are_refused(
    tmp_path: Path, post_processor: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        load_hf_tokenizer(with_post_processor(tmp_path, post_processor))


def test_the_older_layout_says_that_a_token_begins_every_text(tmp_path: Path) -> None:
    model = tokenizer_json(BPETokenizer.train(TEXT, 330))["model"]
    (tmp_path / "vocab.json").write_text(json.dumps({**model["vocab"], "</s>": 330}))
    (tmp_path / "merges.txt").write_text("\n".join(model["merges"]), encoding="utf-8")
    config = {"bos_token": {"content": "</s>"}, "add_bos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_hf_tokenizer(tmp_path).bos_token == "</s>"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "add_bos_token": False}))
    assert load_hf_tokenizer(tmp_path).bos_token is None


# Words, parts of words, several words, part of a character (the first byte of "é"), spaces, and a special token's name.
ENTRIES = [
    "the",
    "quick",
    " quick",
    "quic",
    "it's",
    "'s",
    "\n\n  ",
    "  ",
    " é",
    "日本",
    "user",
    "123",
    " jump over",
    "!!",
]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(ENTRIES), unique=True),
    st.sampled_from(["gpt2", "llama3"]),
    st.lists(st.sampled_from([*ENTRIES, *HOSTILE, " fox"]), max_size=30),
    st.sampled_from([260, 300, 330]),
)
@example(["quick", " quick", "quic"], "gpt2", ["quick", " quick", " quickquick", " quic"], 260)
def test_entries_that_no_merge_makes_have_their_ids_where_they_are_whole_words(
    entries: list[str], pattern: str, pieces: list[str], vocab_size: int
) -> None:
    """With `ignore_merges`, a word is looked up in the vocabulary first; without, such an entry is never produced."""
    tokenizers = pytest.importorskip("tokenizers")
    trained = BPETokenizer.train(TEXT, vocab_size, pattern=pattern)
    known = set(trained.vocab.values())
    more = [entry.encode() for entry in entries if entry.encode() not in known] + [b"\xc3\xa9"[:1] + b"\xff"]
    vocab = {**trained.vocab, **{len(trained.vocab) + number: token for number, token in enumerate(more)}}
    text = "".join(pieces)
    for ignore_merges in (False, True):
        ours = BPETokenizer(vocab, trained.merges, ["<|endoftext|>"], pattern, ignore_merges=ignore_merges)
        theirs = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(ours)))
        assert theirs.encode(text).ids == ours.encode(text, allowed_special="all")
        assert ours.encode_to_numpy(text).tolist() == ours.encode(text)
        assert list(ours.encode_iterable([text])) == ours.encode(text)
        assert BPETokenizer.from_dict(ours.to_dict()).encode(text) == ours.encode(text)


def test_ignore_merges_is_imported(tmp_path: Path) -> None:
    vocab = {**BPETokenizer.train(TEXT, 300).vocab, 300: b"zebra"}
    content = tokenizer_json(BPETokenizer(vocab, BPETokenizer.train(TEXT, 300).merges, ignore_merges=True))
    assert content["model"]["ignore_merges"] is True
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    ours = load_hf_tokenizer(tmp_path)
    assert ours.encode("zebra") == [300]
    assert 300 not in ours.encode("zebras zebra")


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=12),
    st.lists(st.text("abc ", max_size=30), min_size=5, max_size=5),
    st.booleans(),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_several_merges_of_one_token_give_their_ids(
    joined: list[tuple[int, int]], texts: list[str], in_order: bool, ignore_merges: bool, draw: random.Random
) -> None:
    """Also merges of parts that only later merges make, that no merge makes, and merges that are never applied."""
    tokenizers = pytest.importorskip("tokenizers")
    known = [b"a", b"b", b"c"]
    for left, right in joined:
        known += {known[left % len(known)] + known[right % len(known)]} - {*known}
    tokens = draw.sample(known[3:], len(known) - 3)
    vocab = dict(enumerate([*BYTE_ORDER, *tokens]))
    splits = [
        [(token[:n], token[n:]) for n in range(1, len(token)) if {token[:n], token[n:]} <= {*known}] for token in tokens
    ]
    chosen = [draw.sample(pairs, draw.randint(min(1, len(pairs)), len(pairs))) for pairs in splits]
    merges = [pair for pairs in chosen for pair in pairs]
    if not in_order:
        draw.shuffle(merges)
    try:
        ours = BPETokenizer(vocab, merges, ignore_merges=ignore_merges)
    except UserError as error:
        assert not in_order
        assert "ids must follow the order of the merges" in str(error)
        return
    theirs = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(ours)))
    for text in texts:
        assert ours.encode(text) == theirs.encode(text).ids
    assert BPETokenizer.from_dict(ours.to_dict()).to_dict() == ours.to_dict()


def test_a_vocabulary_converted_like_llama_3_has_their_ids_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers turns ranks into merges: all pairs that make a token, where Llama 3's file has over two for each."""
    ranks = {token: id for id, token in BPETokenizer.train(TEXT, 330, pattern="llama3").vocab.items()}
    # Tokens that were appended later: made of later ones, made by no merge, and of several words.
    for token in ("jumps", "umps", "ju", "ebras", "zebras", "zebra", "ps ov", "12345", "345", "12", "34"):
        ranks.setdefault(token.encode(), len(ranks))
    lines = [b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ranks.items()]
    (tmp_path / "tokenizer.model").write_bytes(b"".join(lines))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # else tiktoken copies the file into its cache
    convert = pytest.importorskip("transformers.convert_slow_tokenizer").TikTokenConverter
    theirs = convert(
        str(tmp_path / "tokenizer.model"), pattern=LLAMA3_PUBLISHED, **{EXTRA_SPECIAL_TOKENS: ["<|begin_of_text|>"]}
    ).converted()
    theirs.model.ignore_merges = True
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = load_hf_tokenizer(tmp_path)
    assert isinstance(ours, BPETokenizer)
    assert len(ours.merges) > len({first + second for first, second in ours.merges})
    exported = pytest.importorskip("tokenizers").Tokenizer.from_str(json.dumps(tokenizer_json(ours)))
    draw = random.Random(0)
    words = [*HOSTILE, "zebra", "zebras", " fox's", " jumps over", " quick brown", "they'd", "12345"]
    for _ in range(300):
        text = "".join(draw.choices(words, k=draw.randint(0, 40)))
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, allowed_special="all") == ids
        assert exported.encode(text, add_special_tokens=False).ids == ids


HARMONY = {  # https://github.com/openai/harmony, o200k_harmony
    "<|startoftext|>": 199998, "<|endoftext|>": 199999, "<|return|>": 200002, "<|constrain|>": 200003,
    "<|channel|>": 200005, "<|start|>": 200006, "<|end|>": 200007, "<|message|>": 200008, "<|call|>": 200012,
    "<|endofprompt|>": 200018,
}  # fmt: skip


def test_a_vocabulary_converted_like_gpt_oss_has_their_ids_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The split of o200k_base, special tokens with the ids of o200k_harmony, and reserved ones between them."""
    ranks = {token: id for id, token in BPETokenizer.train(TEXT, 330, pattern="o200k").vocab.items()}
    for number in range(len(ranks), min(HARMONY.values())):  # tokens that no text has
        ranks[b"\x00\xff%d" % number] = number
    fewer = dict(list(ranks.items())[:400])
    lines = [b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in fewer.items()]
    (tmp_path / "tokenizer.model").write_bytes(b"".join(lines))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    named = {id: name for name, id in HARMONY.items()}
    names = [named.get(id, f"<|reserved_{id}|>") for id in range(min(named), max(named) + 1)]
    convert = pytest.importorskip("transformers.convert_slow_tokenizer").TikTokenConverter
    data = json.loads(
        convert(str(tmp_path / "tokenizer.model"), pattern=O200K, **{EXTRA_SPECIAL_TOKENS: names}).converted().to_str()
    )
    data["model"]["vocab"] |= {to_printable(token): id for token, id in ranks.items()}
    for token, id in zip(data["added_tokens"], range(min(named), max(named) + 1), strict=True):
        token["id"] = id
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    theirs = pytest.importorskip("tokenizers").Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ours = load_hf_tokenizer(tmp_path)
    assert isinstance(ours, BPETokenizer)
    assert ours.pattern == "o200k"
    assert {name: ours.special_tokens[name] for name in HARMONY} == HARMONY
    draw = random.Random(0)
    words = [*HOSTILE, *HARMONY, "HelloWorld", "ÉCOLE's", "//\n", "123456"]
    for _ in range(300):
        text = "".join(draw.choices(words, k=draw.randint(0, 40)))
        assert ours.encode(text, allowed_special="all") == theirs.encode(text, add_special_tokens=False).ids


def test_an_added_token_with_an_id_that_the_library_would_not_give_is_refused(tmp_path: Path) -> None:
    data = tokenizer_json(BPETokenizer.train(TEXT, 300, ["<|endoftext|>"]))
    added = {**data["added_tokens"][0], "content": "<|more|>", "id": 305}
    data["added_tokens"].append(added)
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=r"'<\|more\|>' has id 305, but the library gives it 300"):
        load_hf_tokenizer(tmp_path)


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data.update(normalizer={"type": "NFKC"}), r"it normalises text \(NFKC\)"),
        (lambda data: data["model"].update(type="WordLevel"), 'its model is "WordLevel"'),
        (lambda data: data["model"].update(continuing_subword_prefix="##"), "its model uses continuing_subword_prefix"),
        (lambda data: data.update(pre_tokenizer={"type": "Whitespace"}), "its pre-tokenizer is not ByteLevel"),
        (lambda data: data["pre_tokenizer"].update(add_prefix_space=True), "its pre-tokenizer is not ByteLevel"),
        (lambda data: data["pre_tokenizer"].update(use_regex=False), "uses an unknown split pattern; known:"),
        (lambda data: data["added_tokens"][0].update(single_word=True), "'<|endoftext|>' uses single_word"),
        (lambda data: data["added_tokens"][0].update(lstrip=True), "'<|endoftext|>' uses lstrip"),
        (
            lambda data: data.update(post_processor={"type": "TemplateProcessing", "single": [{"SpecialToken": {}}]}),
            r"its post-processor \(TemplateProcessing\) adds tokens to every text, not only one at its start",
        ),
        (lambda data: data["model"]["vocab"].pop("!"), "lacks the byte b'!'"),
        (
            lambda data: data["model"]["merges"].reverse(),
            "ids must follow the order of the merges",
        ),
        (lambda data: data["model"]["vocab"].update({"a b": 999}), "damaged or has an unknown layout"),
        (lambda data: data.pop("model"), "damaged or has an unknown layout"),
        (lambda data: data.update(added_tokens=[{"id": 3}]), "damaged or has an unknown layout"),
    ],
)
def test_what_would_give_other_ids_is_refused(tmp_path: Path, change: Change, told: str) -> None:
    data = tokenizer_json(BPETokenizer.train(TEXT, 300, ["<|endoftext|>"]))
    change(data)
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=rf"tokenizer\.json cannot be used: .*{told.replace('|', '[|]')}"):
        load_hf_tokenizer(tmp_path)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no tokenizer: neither tokenizer\.json nor vocab\.json"):
        load_hf_tokenizer(tmp_path)


def test_a_special_token_named_as_another_token_is_refused() -> None:
    with pytest.raises(UserError, match="special token 'a' cannot be exported"):
        tokenizer_json(CharTokenizer("abc", ["a"]))


def test_a_vocabulary_that_no_merges_make_is_refused() -> None:
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"abc": 256}
    encoding = tiktoken.Encoding("odd", pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={})
    with pytest.raises(UserError, match="no merge of two earlier tokens makes b'abc'"):
        tokenizer_json(PretrainedTokenizer(encoding, {}))


def test_sentencepiece_is_refused() -> None:
    model = SentencePieceTokenizer.__new__(SentencePieceTokenizer)
    with pytest.raises(UserError, match="a sentencepiece tokenizer cannot be exported"):
        tokenizer_json(model)
