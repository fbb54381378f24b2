"""A finished run is sampled, evaluated, reported, opened in Python, and taken elsewhere."""

from __future__ import annotations

import base64
import json
import math
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import contents, glassgpt, last_checkpoint, settings
from safetensors.torch import load_file

import glassgpt as gg
from glassgpt.cli import sample as sample_verb
from glassgpt.course.climb import LadderTraining
from glassgpt.generation.packed import lacks_kernel
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.runs import train as train_module
from glassgpt.runs.run import Run


def test_greedy_writing_is_the_same_every_time(trained: Path) -> None:
    options = ["sample", trained, "--prompt", "The ", "--temperature", 0, "--max-new-tokens", 40]
    first, second = glassgpt(*options), glassgpt(*options)
    assert first.code == 0
    assert first.out.startswith("The ")
    assert len(first.out) == len("The ") + 40 + len("\n")
    assert first.out == second.out


def test_many_samples_are_those_of_their_seeds_in_order(trained: Path) -> None:
    """More than the engine has slots, so that some begin when others have ended."""
    options = ["sample", trained, "--prompt", "The ", "--max-new-tokens", 5]
    many = glassgpt(*options, "--num-samples", 18, "--seed", 3).out.split("\n" + "-" * 40 + "\n")
    assert len(many) == 18
    for number in (0, 1, 17):
        assert many[number] == glassgpt(*options, "--seed", 3 + number).out
    assert "seed 4294967295 is out of range" in glassgpt(*options, "--num-samples", 2, "--seed", 2**32 - 1).err


def test_the_prompts_of_a_file_are_continued_together(trained: Path, tmp_path: Path) -> None:
    """Each as alone with its seed: as text in the order of the file, or as a JSON object for each."""
    options = ["--max-new-tokens", 5, "--seed", 3]
    prompts = ["The cat", "a ", "The"]
    lines, records = tmp_path / "prompts.txt", tmp_path / "prompts.jsonl"
    lines.write_text("The cat\r\n\na \nThe", encoding="utf-8")
    records.write_text("".join(json.dumps({"prompt": prompt, "id": 1}) + "\n" for prompt in prompts), encoding="utf-8")
    written = glassgpt("sample", trained, "--prompts", lines, *options)
    alone = [
        glassgpt("sample", trained, "--prompt", prompt, "--max-new-tokens", 5, "--seed", 3 + number).out
        for number, prompt in enumerate(prompts)
    ]
    assert written.out == ("\n" + "-" * 40 + "\n").join(alone)
    for file, copies in (lines, 1), (records, 2):
        out = glassgpt("sample", trained, "--prompts", file, *options, "--num-samples", copies, "--json").out
        found = [json.loads(line) for line in out.splitlines()]
        assert [one["seed"] for one in found] == list(range(3, 3 + 3 * copies))
        assert [one["prompt"] for one in found] == [prompt for prompt in prompts for _ in range(copies)]
        assert all(len(one["text"]) == 5 for one in found)
        if copies == 1:
            assert [one["prompt"] + one["text"] + "\n" for one in found] == alone


def test_a_draft_model_saves_passes_and_leaves_the_greedy_text_alone(trained: Path) -> None:
    """A draft from the model itself is always right. The packed weights of both are used."""
    options = ["sample", trained, "--prompt", "The ", "--temperature", 0, "--num-samples", 2, "--max-new-tokens", 40]
    plain = glassgpt(*options)
    assert glassgpt(*options, "--draft", trained).out == plain.out
    large, n_passes = gg.load(trained), 0

    def count(*_: object) -> None:
        nonlocal n_passes
        n_passes += 1

    large.model.register_forward_hook(count)
    large.model.norm.register_forward_hook(count)
    drawn = large.stream_many(["The "], SamplingConfig(0.8), max_new_tokens=25, seed=1, draft=gg.load(trained))
    assert len("".join(piece or "" for _, piece in drawn)) == 25
    assert n_passes < 15


@pytest.mark.skipif(lacks_kernel("float32", torch.device("cpu")) is not None, reason="no kernel")
def test_packed_weights_write_the_same_text(trained: Path) -> None:
    options = ["sample", trained, "--prompt", "The ", "--max-new-tokens", 40, "--seed", 1]
    assert glassgpt(*options, "--weights", "float32").out == glassgpt(*options).out
    assert "unknown weights 'int7': did you mean 'int8'?" in glassgpt(*options, "--weights", "int7").error


def test_a_run_in_16_bits(trained: Path, tmp_path: Path) -> None:
    """The weights are rounded once. Validation, writing and a look inside work; an export would keep the rounding."""
    exact, rounded = gg.load(trained), gg.load(trained, dtype="bfloat16")
    assert {parameter.dtype for parameter in exact.model.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in rounded.model.parameters()} == {torch.bfloat16}
    assert len(rounded.generate("The ", max_new_tokens=40, seed=1)) == len("The ") + 40
    assert rounded.evaluate().loss != exact.evaluate().loss
    assert rounded.evaluate().loss == pytest.approx(exact.evaluate().loss, rel=0.02)
    logits, seen = gg.capture(rounded.model, torch.tensor([rounded.tokenizer.encode("The cat")]))
    assert logits.isfinite().all() and seen["blocks.0.attn.pattern"].dtype == torch.bfloat16
    with pytest.raises(gg.UserError, match=r"is open with its weights rounded to torch\.bfloat16"):
        gg.export_hf(rounded, tmp_path / "out")


def test_the_verbs_take_a_precision_and_say_what_it_costs(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glassgpt.runtime.device.cpu_has_bfloat16", lambda: False)
    wrote = glassgpt("sample", trained, "--dtype", "bfloat16", "--max-new-tokens", 3)
    assert wrote.code == 0 and "emulates bfloat16 products" in wrote.err
    evaluated = glassgpt("eval", trained, "--dtype", "bfloat16", "--json")
    assert evaluated.err == wrote.err
    exact = json.loads(glassgpt("eval", trained, "--json").out)["val_loss"]
    assert json.loads(evaluated.out)["val_loss"] == pytest.approx(exact, rel=0.02)
    assert "unknown machine.dtype 'bf16'" in glassgpt("eval", trained, "--dtype", "bf16").error


def test_a_seed_makes_the_drawn_text_repeatable(trained: Path) -> None:
    texts = [glassgpt("sample", trained, "--seed", seed, "--max-new-tokens", 60).out for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_several_samples_differ_and_the_second_is_what_the_next_seed_writes(trained: Path) -> None:
    both = glassgpt("sample", trained, "--num-samples", 2, "--seed", 3, "--max-new-tokens", 30).out
    second = glassgpt("sample", trained, "--seed", 4, "--max-new-tokens", 30).out
    first, _, rest = both.partition("\n" + "-" * 40 + "\n")
    assert rest == second
    assert first.strip() != second.strip()


def test_text_is_streamed_piece_by_piece(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(sample_verb, "print_text", written.append)
    assert glassgpt("sample", trained, "--prompt", "A", "--max-new-tokens", 5).code == 0
    assert written[0] == "A"
    assert [len(piece) for piece in written[1:6]] == [1] * 5


def test_top_k_of_one_is_greedy(trained: Path) -> None:
    greedy = glassgpt("sample", trained, "--temperature", 0, "--max-new-tokens", 30).out
    assert glassgpt("sample", trained, "--top-k", 1, "--max-new-tokens", 30).out == greedy
    assert glassgpt("sample", trained, "--top-p", 1e-9, "--max-new-tokens", 30).out == greedy


def test_a_prompt_longer_than_the_window_is_said_in_one_line(trained: Path) -> None:
    long = glassgpt("sample", trained, "--prompt", "the cat sat " * 3, "--max-new-tokens", 5)
    assert long.code == 0
    (line,) = long.err.splitlines()
    assert "36" in line
    assert "32" in line
    assert "rolling window" in line
    fitting = glassgpt("sample", trained, "--prompt", ("the cat sat " * 3)[:32], "--max-new-tokens", 5)
    assert fitting.err == ""


def test_only_the_last_window_of_a_long_prompt_matters(trained: Path) -> None:
    window = "many dogs ran home to eat and sl"
    texts = [
        glassgpt("sample", trained, "--prompt", before + window, "--temperature", 0, "--max-new-tokens", 20).out
        for before in ("the cat ", "sleep on")
    ]
    assert len(window) == 32
    assert texts[0].removeprefix("the cat ") == texts[1].removeprefix("sleep on")


def test_any_kept_checkpoint_can_write(trained: Path) -> None:
    texts = {
        which: glassgpt(
            "sample", trained, "--checkpoint", which, "--temperature", 1, "--seed", 1, "--max-new-tokens", 40
        )
        for which in ("0", "40", "last", "best")
    }
    assert all(result.code == 0 for result in texts.values())
    assert texts["last"].out == texts["40"].out != texts["0"].out


def test_sampling_evaluating_and_opening_change_nothing_in_the_folder(trained: Path) -> None:
    before = contents(trained)
    assert glassgpt("sample", trained, "--max-new-tokens", 3).code == 0
    assert glassgpt("eval", trained).code == 0
    gg.load(trained).generate(max_new_tokens=3)
    assert contents(trained) == before


def test_eval_gives_the_four_figures_and_agrees_with_training(trained: Path) -> None:
    figures = json.loads(glassgpt("eval", trained, "--checkpoint", "last", "--json").out)
    assert list(figures) == ["val_loss", "perplexity", "bits_per_byte", "tokens"]
    final = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert figures["val_loss"] == pytest.approx(final["val/loss"], abs=1e-6)
    assert figures["tokens"] == final["val/tokens"]
    assert figures["perplexity"] == pytest.approx(math.exp(figures["val_loss"]))
    assert figures["bits_per_byte"] == pytest.approx(figures["val_loss"] / math.log(2))  # a token is a byte here


def test_eval_for_people_names_run_step_and_split(trained: Path) -> None:
    result = glassgpt("eval", trained, "--split", "train", "--checkpoint", "last")
    for words in (str(trained), "step 40", "train split", "nats per token", "bits per byte"):
        assert words in result.out


def test_eval_reads_another_text(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("eat eat eat sleep sleep sleep.\n" * 30)
    own = json.loads(glassgpt("eval", trained, "--json").out)
    other = json.loads(glassgpt("eval", trained, "--data", tmp_path / "other.txt", "--json").out)
    assert other["val_loss"] != own["val_loss"]


def test_no_weights_are_drawn_where_a_file_has_them(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when a run is opened nor when it goes on: that took longer than reading the file."""
    before = torch.get_rng_state()
    opened = gg.load(run)
    assert torch.equal(torch.get_rng_state(), before)
    expected = load_file(opened.checkpoint.path / "model.safetensors")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in opened.model.state_dict().items())
    monkeypatch.setattr(train_module, "_draw_model", None)
    assert glassgpt("train", "--run", run, "--resume", "--max-steps", 41).code == 0


def test_report_of_one_run_lies_in_its_folder_and_loads_nothing(run: Path) -> None:
    (run / "report.html").unlink()
    result = glassgpt("report", run)
    assert result.out.strip() == str(run / "report.html")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert not re.search(
        r"""<(script|link|img|iframe)[^>]*(src|href)\s*=\s*["']?(https?:)?//|@import|url\(["']?http""", page
    )


def test_report_of_several_runs_is_one_page(trained: Path, run: Path, tmp_path: Path) -> None:
    result = glassgpt("report", trained, run, "--out", tmp_path / "both.html")
    assert result.out.strip() == str(tmp_path / "both.html")
    page = (tmp_path / "both.html").read_text(encoding="utf-8")
    assert "trained" in page
    assert "run" in page


def test_python_trains_on_a_text_opens_it_and_writes(text: str, elsewhere: Path) -> None:
    finished = gg.train(recipe="char-tiny", text=text, overrides=settings(training__max_steps=3)[1::2])
    opened = gg.load(finished.folder)
    assert opened.folder == Path("runs/char-tiny")
    assert opened.config.model.n_embd == opened.model.config.n_embd == 32
    assert opened.tokenizer.decode(opened.tokenizer.encode("the cat")) == "the cat"
    assert not opened.model.training
    written = opened.generate("the cat", max_new_tokens=10, seed=1)
    assert written.startswith("the cat")
    assert len(written) == len("the cat") + 10
    assert written == opened.generate("the cat", max_new_tokens=10, seed=1)


def test_the_python_names_take_settings_as_values(text: str, elsewhere: Path) -> None:
    values = {"model.n_layer": 1, "model.n_embd": 16, "training.max_steps": 2, "evaluation.sample_every": 0}
    finished = gg.train("char-tiny", text=text, run=elsewhere / "mine", settings=values)
    assert finished.folder == elsewhere / "mine"
    assert finished.config.model.n_layer == 1
    assert finished.summary is not None
    assert finished.summary["steps"] == 2


def test_the_same_call_again_gives_the_finished_run_back(
    text: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a notebook's cell that is executed twice."""
    small = {"model.n_layer": 1, "model.n_embd": 16, "model.block_size": 16, "training.batch_tokens": 64}

    def cell(**changes: Any) -> gg.Run:
        return gg.train(**{"text": text, "run": "cell", "max_steps": 2, "settings": small} | changes)

    first = cell()
    before = contents(first.folder)
    assert cell().summary == first.summary
    assert "finished at step 2" in capsys.readouterr().err
    assert contents(first.folder) == before
    with pytest.raises(gg.UserError, match=r"model\.n_layer was 1 and is now 2"):
        cell(settings=small | {"model.n_layer": 2})
    with pytest.raises(gg.UserError, match="the text given is not the one"):
        cell(text=text + text)
    with pytest.raises(gg.UserError, match="exists: go on with"):
        cell(resume=False)
    assert contents(first.folder) == before
    assert cell(max_steps=3).summary["steps"] == 3  # goes on
    replaced = cell(settings=small | {"model.n_layer": 2}, overwrite=True)
    assert (replaced.config.model.n_layer, replaced.summary["steps"]) == (2, 2)


def test_a_folder_that_is_no_run_is_not_taken_for_one(text: str, elsewhere: Path) -> None:
    (elsewhere / "mine").mkdir()
    (elsewhere / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(gg.UserError, match="is not a run folder"):
        gg.train(text=text, run=elsewhere / "mine", max_steps=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"max_steps": 10.0}, "max_steps = 10.0: input should be a valid integer"),
        ({"max_steps": True}, "max_steps = True: input should be a valid integer"),
        ({"recipe": 3}, "recipe = 3: input should be an instance of str"),
        ({"run": 7}, "run = 7: input should be"),
        ({"text": b"bytes"}, "text = b'bytes': input should be an instance of str"),
        ({"overwrite": "no"}, "overwrite = 'no': input should be a valid boolean"),
        ({"track": "swanlab"}, "track = 'swanlab': "),
        ({"overrides": "model.n_layer=1"}, "overrides = 'model.n_layer=1': "),
        ({"settings": ["model.n_layer"]}, "settings = "),
        ({"settings": {"training.max_steps": 10.0}}, "training.max_steps = 10.0: input should be a valid integer"),
        ({"listener": print}, "listener = <built-in function print>: input should be an instance of Listener"),
    ],
)
def test_arguments_are_checked_as_strictly_as_a_recipe(
    arguments: dict[str, Any], said: str, text: str, elsewhere: Path
) -> None:
    with pytest.raises(gg.UserError, match=f"^{re.escape(said)}"):
        gg.train(**{"text": text, "run": "mine"} | arguments)
    assert not (elsewhere / "runs" / "mine").exists()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda run: run.generate(5), "prompt = 5: input should be an instance of str"),
        (lambda run: run.generate(max_new_tokens=2.5), "max_new_tokens = 2.5: input should be a valid integer"),
        (lambda run: run.generate(temperature="x"), "temperature = 'x': input should be a valid number"),
        (lambda run: run.generate(seed=1.5), "seed = 1.5: input should be a valid integer"),
        (lambda run: run.stream("", 0.5), "config = 0.5: input should be an instance of SamplingConfig"),
        (lambda run: run.evaluate(5), "data = 5: input should be an instance of str"),
        (lambda run: run.evaluate(stride=2.5), "stride = 2.5: input should be a valid integer"),
        (lambda run: run.evaluate_suite("hellaswag", limit="3"), "limit = '3': input should be a valid integer"),
        (lambda run: run.evaluate_tasks("arc"), "tasks = 'arc': "),
        (lambda run: gg.load(5), "run = 5: "),
        (lambda run: gg.load(run.folder, checkpoint=1.5), "checkpoint = 1.5: "),
        (lambda run: gg.export_hf(3, "out"), "run = 3: input should be an instance of Run"),
        (lambda run: gg.export_hf(run, None), "folder = None: "),
        (lambda run: gg.import_hf(3, run="new"), "source = 3: "),
        (lambda run: gg.load_hf(".", dropout="x"), "dropout = 'x': input should be a valid number"),
        (lambda run: gg.climb("4"), "section = '4': input should be a valid integer"),
        (lambda run: gg.climb(4, 0.5), "seed = 0.5: input should be a valid integer"),
        (lambda run: gg.climb(4, -1), "seed -1 is out of range"),
        (lambda run: gg.climb(4, training=3), "training = 3: input should be an instance of LadderTraining"),
        (lambda run: LadderTraining(steps=2.5), "steps = 2.5: input should be a valid integer"),
        (lambda run: LadderTraining(lr=math.nan), "LadderTraining.lr = nan is out of range"),
        (lambda run: LadderTraining(batch_rows=0), "LadderTraining.batch_rows = 0 is out of range"),
        (lambda run: SamplingConfig(top_k=2.5), "top_k = 2.5: input should be a valid integer"),
    ],
)
def test_arguments_of_every_call_are_checked(trained: Path, call: Callable[[Run], object], said: str) -> None:
    with pytest.raises(gg.UserError, match=f"^{re.escape(said)}"):
        call(gg.load(trained, device="cpu"))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda run: gg.train(run=run, resume=False), "go on with resume=True, replace it with overwrite=True, or"),
        (lambda run: gg.train(resume=True), "resume=True needs to know which run: name it with run='NAME'"),
        (lambda run: gg.train(run=run, resume=True, overwrite=True), "resume=True continues a run and overwrite=True"),
        (lambda run: gg.train(run=run, resume=True, max_steps=2), "already at step 40, beyond max_steps=2"),
        (lambda run: gg.train("finetune", text="a b c"), "name it with init_from='RUN'"),
        (lambda run: gg.load(run).generate(max_new_tokens=0), "max_new_tokens=0 is out of range"),
        (lambda run: gg.climb(4, run=run), "replace it with overwrite=True, or choose another run"),
        (lambda run: gg.export_hf(gg.load(run), run), "choose another folder"),
    ],
)
def test_errors_in_python_name_arguments_not_options(
    trained: Path, elsewhere: Path, call: Callable[[Path], object], said: str
) -> None:
    with pytest.raises(gg.UserError, match=re.escape(said)) as refused:
        call(trained)
    assert "--" not in str(refused.value)


def test_a_lone_surrogate_is_named_in_every_text(trained: Path, elsewhere: Path) -> None:
    opened = gg.load(trained, device="cpu")
    for call in (opened.generate, lambda text: opened.evaluate(text=text), lambda text: gg.train(text=text)):
        with pytest.raises(gg.UserError, match="lone surrogate"):
            call("a \udcff")


def test_an_integer_may_stand_for_a_float(trained: Path) -> None:
    opened = gg.load(trained, device="cpu")
    assert opened.generate("a", temperature=1, max_new_tokens=1, seed=1).startswith("a")
    assert LadderTraining(lr=1).lr == 1


def test_a_run_says_what_it_is_in_a_few_lines(run: Path) -> None:
    opened = gg.load(run)
    lines = repr(opened).splitlines()
    assert lines[0] == f"Run {run}"
    assert lines[1].startswith("  gpt2 2 x 32, block 32, ") and "char tokenizer" in lines[1]
    assert lines[2] == f"  weights of step {opened.step}, on {opened.runtime.device}"
    assert f"Finished after 40 steps. Validation loss {opened.summary['val_loss']:.4f}" in lines[3]
    html = opened._repr_html_()
    image = base64.b64decode(re.search('src="data:image/svg[+]xml;base64,([^"]+)"', html)[1])
    texts = [element.text for element in ElementTree.fromstring(image).iter("{http://www.w3.org/2000/svg}text")]
    assert {"step 0", "step 40"} <= set(texts)
    shutil.rmtree(run)
    assert repr(opened).startswith(f"Run {run}")  # there is still something to say
    assert "<img" not in opened._repr_html_()


def test_settings_under_names_of_before_are_noted_once(
    text: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = {"training.eval_every": 1, "training.device": "cpu", "training.micro_batch": 0}
    finished = gg.train(
        text=text, run="mine", settings=old, overrides=["training.checkpoint_every=1"], max_steps=2,
    )  # fmt: skip
    config = finished.config
    assert (config.evaluation.every, config.checkpoint.every, config.machine.device) == (1, 1, "cpu")
    assert config.training.micro_batch is None
    notes = [line for line in capsys.readouterr().err.splitlines() if " is now " in line]
    assert notes == [
        "training.eval_every is now evaluation.every",
        "training.device is now machine.device",
        'training.micro_batch = 0 is now training.micro_batch = "none"',
        "training.checkpoint_every is now checkpoint.every",
    ]


@pytest.fixture
def moved(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run in another place, with a cache that has never seen its shards."""
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path / "empty-cache"))
    monkeypatch.chdir(tmp_path)
    return Path(shutil.move(run, tmp_path / "moved"))


def test_a_moved_run_writes_without_the_cache(moved: Path, trained: Path) -> None:
    options = ["--seed", 5, "--max-new-tokens", 30]
    assert glassgpt("sample", moved, *options).out == glassgpt("sample", trained, *options).out
    assert not Path("empty-cache").exists()


def test_a_moved_run_is_evaluated_on_its_text_again(moved: Path, trained: Path) -> None:
    assert json.loads(glassgpt("eval", moved, "--json").out) == json.loads(glassgpt("eval", trained, "--json").out)


def test_a_moved_run_goes_on_where_its_text_is_found(moved: Path) -> None:
    assert glassgpt("train", "--run", moved, "--resume", "--max-steps", 42).code == 0
    assert last_checkpoint(moved).name == "step-00000042"


def test_a_moved_run_whose_text_is_gone_says_which_text(moved: Path, text_file: Path) -> None:
    manifest = moved / "data.json"
    gone = text_file.with_name("gone.txt")
    manifest.write_text(manifest.read_text().replace(str(text_file), str(gone)))
    before = contents(moved)
    for command in (["eval", moved], ["train", "--run", moved, "--resume", "--max-steps", 50]):
        error = glassgpt(*command).error
        assert str(gone) in error
    assert contents(moved) == before
    assert glassgpt("sample", moved, "--max-new-tokens", 3).code == 0


def test_a_moved_run_refuses_a_text_that_has_changed(moved: Path, text_file: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.txt"
    changed.write_text(text_file.read_text()[:-1] + "!")
    manifest = moved / "data.json"
    manifest.write_text(manifest.read_text().replace(str(text_file), str(changed)))
    error = glassgpt("eval", moved).error
    assert str(changed) in error
    assert "changed" in error


def test_a_run_from_stdin_without_the_cache_says_what_to_do(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--data", "-", "--run", tmp_path / "run", *settings(training__max_steps=1)]
    assert glassgpt("train", *options, stdin=text.encode()).code == 0
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path / "empty-cache"))
    error = glassgpt("eval", tmp_path / "run").error
    assert "stdin" in error
    assert "prepare" in error


def test_the_best_of_a_run_that_has_ended_is_that_of_its_last_figures(run: Path) -> None:
    """A part of the validation split may prefer another one than the whole does."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert gg.load(run).step == lines[-1]["best/step"] == 40
    lines[-1]["best/step"] = 30
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert gg.load(run).step == 30
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    assert gg.load(run).step == 40


def test_the_verb_and_the_api_write_the_same_by_default(trained: Path) -> None:
    run = gg.load(trained)
    text = run.generate("The ", seed=3)
    assert text == "The " + "".join(run.stream("The ", seed=3))
    assert text + "\n" == glassgpt("sample", trained, "--prompt", "The ", "--seed", 3).out
