"""`glassgpt data list|prepare|info|verify`, and the inventory behind them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from glassgpt.cli.data import app
from glassgpt.data.corpora import shakespeare_path
from glassgpt.data.dataset_cache import DataConfig, build_dataset
from glassgpt.errors import UserError
from glassgpt.tokenizers import TokenizerConfig

TEXT = "some text, and then some more of it\n" * 30


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def call(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def call_json(*args: object) -> dict[str, Any]:
    result = call(*args, "--json")
    assert result.exception is None, result.exception
    return json.loads(result.stdout)


def test_prepare_reports_what_it_made_and_finds_it_again(source: Path) -> None:
    first = call_json("prepare", "--data", source)
    assert first["source"] == str(source)
    assert first["train"]["tokens"] + first["val"]["tokens"] == len(TEXT)
    assert (first["tokenizer"]["name"], first["tokenizer"]["vocab_size"]) == ("char", len(set(TEXT)))
    assert Path(first["folder"], "train.shard").is_file()
    assert call_json("prepare", "--data", source) == first
    assert "tokenised before, in the cache" in call("prepare", "--data", source).stderr


def test_prepare_takes_stdin() -> None:
    result = CliRunner().invoke(app, ["prepare", "--data", "-", "--json"], input=TEXT)
    fields = json.loads(result.stdout)
    assert (fields["source"], fields["train"]["tokens"]) == ("-", int(0.9 * len(TEXT)))


def test_prepare_passes_the_size_of_the_vocabulary_on(source: Path) -> None:
    fields = call_json("prepare", "--data", source, "--tokenizer", "bpe", "--vocab-size", 260)
    assert fields["tokenizer"]["vocab_size"] == 260


def test_prepare_as_text_has_a_line_for_each_figure(source: Path) -> None:
    lines = dict(line.split(maxsplit=1) for line in call("prepare", "--data", source).stdout.splitlines())
    assert lines["train.tokens"] == str(int(0.9 * len(TEXT)))
    assert lines["kind"] == "prepared"
    assert "None" not in lines.values()


def test_list_before_and_after(source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = call_json("list")
    assert [entry["name"] for entry in empty["names"]] == ["auto", "shakespeare", "python-manual", "echoes"]
    assert (empty["cache"], empty["prepared"]) == (str(cache), [])
    assert "nothing yet" in call("list").stdout
    key = call_json("prepare", "--data", source)["key"]
    [entry] = call_json("list")["prepared"]
    assert (entry["key"], entry["name"], entry["train_tokens"]) == (key, "text.txt", int(0.9 * len(TEXT)))
    long = source.rename(source.with_name("a-text-whose-name-alone-is-almost-as-long-as-a-line-of-a-terminal.txt"))
    call_json("prepare", "--data", long, "--tokenizer", "bpe", "--vocab-size", 260)
    monkeypatch.setenv("COLUMNS", "80")
    _, title, *rows = call("list").stdout.partition("\nprepared in ")[2].splitlines()
    assert title.split() == ["key", "train", "tokens", "val", "tokens", "tokenizer", "ids", "text"]
    assert len(rows) == 2 and max(map(len, rows)) <= 80
    assert f"{int(0.9 * len(TEXT))} " in next(
        row for row in rows if row.startswith(key[:8]) and row.endswith("text.txt")
    )
    assert call_json("info", key[:8])["key"] == key


def test_list_shows_a_damaged_entry_with_its_problem(source: Path) -> None:
    folder = Path(call_json("prepare", "--data", source)["folder"])
    (folder / "manifest.json").write_text("{")
    [entry] = call_json("list")["prepared"]
    assert entry["key"] == folder.name
    assert "manifest.json is not JSON" in entry["problem"]
    assert f"{folder.name[:8]} is damaged: " in call("list").stdout


def test_info_knows_a_prepared_folder_by_every_name(source: Path, tmp_path: Path) -> None:
    dataset = call_json("prepare", "--data", source)
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(Path(dataset["folder"], "manifest.json"), run / "data.json")
    for target in (dataset["folder"], dataset["key"], dataset["key"][:8], run):
        assert call_json("info", target) == dataset


def test_info_of_a_shard_and_of_a_text(source: Path) -> None:
    folder = Path(call_json("prepare", "--data", source)["folder"])
    shard = call_json("info", folder / "train.shard")
    assert (shard["kind"], shard["tokens"], shard["dtype"]) == ("shard", int(0.9 * len(TEXT)), "uint16")
    text = call_json("info", source)
    assert (text["kind"], text["characters"], text["lines"]) == ("text", len(TEXT), 30)
    assert text["distinct_characters"] == len(set(TEXT))


def test_a_key_that_is_cut_too_short_is_a_user_error(cache: Path) -> None:
    for key in ("abcd1", "abcd2"):
        (cache / "prepared" / key).mkdir(parents=True)
    assert "2 keys in the cache begin with abcd: abcd1, abcd2" in str(call("info", "abcd").exception)


@pytest.mark.parametrize("target", ["shakespere", "gone.txt", "0123abcd"])
def test_info_of_nothing_is_a_user_error(target: str) -> None:
    assert isinstance(call("info", target).exception, UserError)


def test_verify_finds_all_whole(source: Path) -> None:
    assert call_json("verify") == {"checked": 0, "problems": []}
    assert "nothing to verify" in call("verify").stdout
    folder = call_json("prepare", "--data", source)["folder"]
    for target in ([], [folder], [Path(folder, "val.shard")]):
        assert call_json("verify", *target) == {"checked": 1, "problems": []}
    assert call("verify").stdout.split() == ["whole", folder]


@pytest.mark.parametrize("name", ["train.shard", "val.shard", "tokenizer.json"])
def test_verify_names_an_altered_file(source: Path, name: str) -> None:
    path = Path(call_json("prepare", "--data", source)["folder"], name)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if name.endswith("shard") else data.replace(b"m", b"M"))
    result = call("verify", "--json")
    [problem] = json.loads(result.stdout)["problems"]
    assert name in problem["problem"]
    assert isinstance(result.exception, UserError)
    assert str(result.exception) == problem["problem"]
    assert call("verify").stdout.split() == ["damaged", str(path.parent)]


def test_verify_names_a_truncated_and_a_foreign_shard(source: Path, tmp_path: Path) -> None:
    path = Path(call_json("prepare", "--data", source)["folder"], "train.shard")
    path.write_bytes(path.read_bytes()[:-2])
    assert "train.shard is truncated" in str(call("verify", path).exception)
    assert "text.txt is not a GlassGPT token shard" in str(call("verify", source).exception)
    assert "nothing to verify at" in str(call("verify", tmp_path / "gone").exception)


def test_verify_counts_further_problems_and_checks_the_corpus(source: Path) -> None:
    Path(call_json("prepare", "--data", source)["folder"], "train.shard").unlink()
    shakespeare_path().parent.mkdir(parents=True)
    shakespeare_path().write_text("not the play")
    error = str(call("verify").exception)
    assert "shakespeare.txt is not Tiny Shakespeare" in error
    assert error.endswith("(and 1 more)")


def test_listing_and_verifying_load_no_torch(source: Path) -> None:
    program = (
        "import sys; from glassgpt.cli.data import app\n"
        "for verb in ('list', 'verify'): app([verb], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_files_of_other_programs_that_bear_our_names_are_texts(tmp_path: Path) -> None:
    for name in ("data.json", "manifest.json"):
        folder = tmp_path / name.removesuffix(".json")
        folder.mkdir()
        (folder / name).write_text('{"name": "a page that can be installed"}')
        assert call_json("info", folder)["kind"] == "text"
        assert "nothing to verify at" in str(call("verify", folder).exception)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder made by `data prepare --out`, with a tokenizer of its own."""
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"body": TEXT}) + "\n" for _ in range(9)))
    arguments = ("--tokenizer", "bpe", "--vocab-size", 270, "--shard-tokens", 900, "--workers", 1)
    result = call_json("prepare", tmp_path / "corpus.jsonl", "--column", "body", "--out", tmp_path / "out", *arguments)
    assert result["folder"] == str(tmp_path / "out")
    return tmp_path / "out"


def test_a_folder_of_shards_is_described_and_verified(shards: Path) -> None:
    fields = call_json("info", shards)
    assert (fields["kind"], fields["format"], fields["dtype"]) == ("prepared", "glassgpt", "uint16")
    assert fields["val"]["tokens"] == 900
    assert fields["tokens"] == fields["val"]["tokens"] + fields["train"]["tokens"]
    assert fields["train"]["documents"] + fields["val"]["documents"] == 9
    assert call_json("verify", shards) == {"checked": 1, "problems": []}
    path = shards / "train_000002.shard"
    path.write_bytes(path.read_bytes()[:1000] + b"!!" + path.read_bytes()[1002:])
    assert "train_000002.shard was altered" in str(call("verify", shards).exception)
    path.unlink()
    assert "train_000002.shard" in str(call("verify", shards).exception)


def test_an_unfinished_folder_is_said_to_be(shards: Path) -> None:
    (shards / "manifest.json").unlink()
    fields = call_json("info", shards)
    assert (fields["kind"], fields["shards"][0]) == ("unfinished", "val_000000.shard")
    error = str(call("verify", shards).exception)
    assert f"{shards} is unfinished, with {len(fields['shards'])} shards" in error
    with pytest.raises(UserError, match=r"is unfinished: run its `data prepare` command again"):
        build_dataset(DataConfig(str(shards)), TokenizerConfig("char"))


def test_token_files_of_other_programs_are_described_and_verified(tmp_path: Path) -> None:
    ids = np.arange(1000, dtype=np.uint16) * 60
    ids.tofile(tmp_path / "train.bin")
    np.save(tmp_path / "a.npy", ids)
    one = call_json("info", tmp_path / "a.npy")
    assert one == {"kind": "shard", "format": "npy", "path": str(tmp_path / "a.npy"), "tokens": 1000, "dtype": "uint16"}
    folder = call_json("info", tmp_path)
    assert (folder["kind"], folder["format"], folder["tokens"]) == ("shards", "nanogpt-bin", 1000)
    assert folder["train"] == {"shards": ["train.bin"]}
    for target in (tmp_path, tmp_path / "a.npy"):
        assert "id 50280 at position 838, outside a vocabulary of 50257" in str(call("verify", target).exception)
        assert call_json("verify", target, "--vocab-size", 60_000) == {"checked": 1, "problems": []}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.txt", "--workers", 2], "--workers works only with --out"),
        (["a.txt", "b.txt"], "2 sources are given"),
        (["a.txt", "--out", "o", "--val-fraction", 0.2], "give --shard-tokens instead of --val-fraction"),
        (["-", "--out", "o"], "stdin cannot be read a second time"),
        (["a.txt", "--out", "o", "--sample", "10BT"], "--sample is for fineweb-edu"),
        (["a.txt", "--out", "o", "--split", "train"], "--split and --config are for data sets of the hub"),
        (["fineweb-edu", "--out", "o", "--sample", "11BT"], "unknown sample of fineweb-edu '11BT'"),
        (["fineweb-edu", "--out", "o"], "cannot read dataset 'HuggingFaceFW/fineweb-edu' from the Hugging Face hub"),
        (["gone.jsonl", "--out", "o"], "no file, folder or pattern 'gone.jsonl'"),
        (
            ["a.parquet"],
            "a.parquet is parquet: convert it to shards first, with `glassgpt data prepare a.parquet --out",
        ),
        (["a.txt", "--out", "o", "--column", ""], "--column is empty: give a value, or leave the option out"),
        (["a.txt", "--tokenizer", ""], "--tokenizer is empty"),
        (["", "--out", "o"], "a SOURCE is empty"),
        ([""], "data.source is empty"),
        (["owner/name"], "to use a dataset of the hub, convert it to shards first"),
    ],
)
def test_options_that_do_not_fit_are_user_errors(
    arguments: list[object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt", "a.parquet"):
        (tmp_path / name).write_text(TEXT)
    result = call("prepare", *arguments)
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "a.txt", "b.txt"]


def test_known_names_and_several_files_become_shards(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(TEXT)
    options = ("--tokenizer", "bpe", "--vocab-size", 260, "--workers", 1, "--shard-tokens")
    both = call_json("prepare", tmp_path / "*.txt", "--out", tmp_path / "both", *options, 500)
    assert both["train"]["documents"] + both["val"]["documents"] == 2
    manual = call_json("prepare", "python-manual", "--out", tmp_path / "manual", *options, 100_000)
    assert (manual["name"], manual["val"]["documents"]) == ("python-manual", 1)
    assert manual["note"].startswith("python-manual: 1 document in ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", ""], "the name of the data is empty"),
        (["verify", ""], "the name of the data is empty"),
        (["verify", "--vocab-size", 0], "--vocab-size is 0, but must be 1 or more"),
        (["verify", "--vocab-size", -5], "--vocab-size is -5"),
    ],
)
def test_empty_names_and_vocabularies_are_user_errors(arguments: list[object], message: str) -> None:
    result = call(*arguments)
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)


def test_null_documents_are_said_once_on_stderr(tmp_path: Path) -> None:
    lines = [{"text": TEXT}, {"text": None}, {"text": TEXT}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ("--tokenizer", "bpe", "--vocab-size", 260, "--shard-tokens", 500)
    result = call("prepare", tmp_path / "a.jsonl", "--out", tmp_path / "out", *options)
    assert result.stderr.count("1 document was left out: it has null in place of a text") == 1
    assert call_json("info", tmp_path / "out")["null_documents"] == 1
