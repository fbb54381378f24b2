"""Several ranks, as torchrun starts them, on gloo: they train as one, stop as one, and end as one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from command_line import Command, figures, glassgpt, last_checkpoint, settings
from safetensors.torch import load_file

from glassgpt.runtime import distributed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="gloo between processes that are found in /proc")

STEPS = 20
# Without dropout, which each rank draws for its own rows.
SETTINGS = settings(model__dropout=0.0, training__max_steps=STEPS)
ENDLESS = settings(model__dropout=0.0, training__max_steps=1_000_000, evaluation__every=0, evaluation__sample_every=0)
LOSSES = ("train/loss", "val/loss", "grad_norm", "best/val/loss")


class Job(Command):
    """`torchrun … -m glassgpt …`."""

    def __init__(self, *arguments: object, program: Sequence[object] = ("-m", "glassgpt"), ranks: int = 2) -> None:
        # The "--" keeps torchrun from taking --run for an abbreviation of its own --run-path.
        super().__init__(*arguments, program=("-m", "torch.distributed.run", "--nproc-per-node", ranks, *program, "--"))

    def ranks(self) -> list[int]:
        """The process numbers of the ranks, in their order."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return sorted(map(int, children.split()))


@pytest.fixture
def start(end_commands: None) -> type[Job]:
    return Job


@pytest.fixture(scope="module")
def alone(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process that every job must equal."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    result = glassgpt("train", "char-tiny", "--data", text_file, "--run", folder, *SETTINGS)
    assert result.code == 0, result.err
    return folder


def assert_same_losses(run: Path, other: Path) -> None:
    ours, theirs = figures(run), figures(other)
    assert len(ours) == len(theirs)
    for line, expected in zip(ours, theirs, strict=True):
        assert line.keys() == expected.keys()
        for name in LOSSES:
            assert line.get(name) == pytest.approx(expected.get(name), abs=1e-5), (line, name)


def test_two_ranks_train_as_one(start: type[Job], text_file: Path, tmp_path: Path, alone: Path) -> None:
    """Cut into micro-batches, the last one smaller: figures, files, and everything said once."""
    run = tmp_path / "run"
    way = ["--parallel", "ddp", "--set", "training.micro_batch=3"]
    code, out, err = start("train", "char-tiny", "--data", text_file, "--run", run, *SETTINGS, *way, "--json").end()
    assert code == 0, err
    assert json.loads(out)["steps"] == STEPS
    assert err.count(f"step    20/{STEPS}") == 1
    assert_same_losses(run, alone)
    assert shapes(run) == shapes(alone)


def shapes(run: Path) -> dict[str, object]:
    """Of every tensor in the last checkpoint."""
    files = last_checkpoint(run).glob("*.safetensors")
    return {name: tensor.shape for file in files for name, tensor in load_file(file).items()}


# As on two nodes: a folder, a cache and a local rank 0 of its own for each rank. No process group, whose ranks may not
# wait long for each other, exists while a node prepares its data.
APART = """
import os
rank = os.environ["RANK"]
os.environ.update(GROUP_RANK=rank, LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", GLASSGPT_CACHE=f"{os.getcwd()}/cache-{rank}")
os.mkdir(f"node-{rank}")
os.chdir(f"node-{rank}")
import torch.distributed as dist
from glassgpt.cli.main import main
from glassgpt.runs import pretraining, train

def early(prepare):
    def checked(*arguments):
        assert not dist.is_initialized(), f"{prepare.__name__} is called after the process group has begun"
        return prepare(*arguments)
    return checked

pretraining.reopen_dataset = early(pretraining.reopen_dataset)
train._open_suites, train._build_model = early(train._open_suites), early(train._build_model)
main()
"""


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_hold_few_logits(
    start: type[Job], text_file: Path, tmp_path: Path, parallel: str, alone: Path
) -> None:
    """A loss that calls `features` and `head`, with validation, samples, and every block run again."""
    way = ["--parallel", parallel, "--set", "training.loss_chunk=50", "--set", "machine.activation_checkpointing=true"]
    code, _, err = start("train", "char-tiny", "--data", text_file, "--run", tmp_path / "run", *SETTINGS, *way).end()
    assert code == 0, err
    assert_same_losses(tmp_path / "run", alone)


# A program of a caller: what it does after training it does on every rank.
CALLER = """
import sys
import glassgpt as gg
data, folder, *overrides = sys.argv[1:]
run = gg.train("char-tiny", data=data, run=folder, max_steps=2, listener=gg.Listener(), overrides=overrides)
print("returned", "nothing" if run is None else run.step)
"""


def test_train_ends_no_caller(start: type[Job], text_file: Path, tmp_path: Path) -> None:
    program = tmp_path / "caller.py"
    program.write_text(CALLER)
    overrides = [part for part in SETTINGS if part != "--set"]
    code, out, err = start(text_file, tmp_path / "run", *overrides, program=[program]).end()
    assert code == 0, err
    assert sorted(out.split("\n")[:2]) == ["returned 2", "returned nothing"]


def test_ranks_share_no_disk(start: type[Job], text_file: Path, elsewhere: Path, alone: Path) -> None:
    Path("apart.py").write_text(APART)
    options = [
        "char-tiny",
        "--data",
        text_file,
        "--run",
        "apart",
        "--parallel",
        "fsdp",
        "--set",
        "training.micro_batch=2",
        *SETTINGS,
    ]
    code, _, err = start("train", *options, program=["apart.py"]).end()
    assert code == 0, err
    assert_same_losses(Path("node-0/runs/apart"), alone)
    assert shapes(Path("node-0/runs/apart")) == shapes(alone)
    assert list(Path("node-1").iterdir()) == []
    assert list(Path("cache-1/prepared").iterdir())


# Global batches whose masks leave some ranks and micro-batches much to learn, others nothing. Ends with all losses.
MASKED = """
import json, sys, torch
from functools import partial
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.runtime.distributed import join_ranks
from glassgpt.runtime.device import build_runtime
from glassgpt.training.fit import TrainState, fit
from glassgpt.training.losses import Batch, next_token_loss
from glassgpt.training.optimizers import OptimizerConfig, build_optimizer

ROWS, BLOCK, VOCAB = 12, 16, 29
ranks = join_ranks()
# The first of two ranks has 4 of the 12 rows: ranks may have unequal numbers of targets.
first, last = (0, ROWS) if not ranks.several else (0, 4) if ranks.first else (4, ROWS)


def batches(step):
    draw = torch.Generator().manual_seed(step)
    tokens = torch.randint(VOCAB, (ROWS, BLOCK), generator=draw)
    mask = torch.rand(ROWS, BLOCK, generator=draw) < torch.rand(ROWS, 1, generator=draw)
    mask[: (0, 3, 6)[step % 3]] = False  # at every third step nothing for the first of two ranks
    middle = (first + last) // 2  # as many micro-batches on every rank
    rows = [slice(first, middle), slice(middle, last)]
    return [Batch(tokens[part], (3 * tokens[part] + 1) % VOCAB, mask[part]) for part in rows]


def train(parallel, recompute, chunk):
    runtime = build_runtime("cpu", ranks=ranks, parallel=parallel, activation_checkpointing=recompute)
    torch.manual_seed(0)
    model = GPT2(GPT2Config(VOCAB, BLOCK, n_layer=2, n_head=2, n_embd=32))
    losses, seen = [], []
    fit(
        runtime.wrap(model, partial(next_token_loss, chunk=chunk), in_parts=chunk > 0),
        build_optimizer(model, OptimizerConfig()), batches=batches,
        expected_weight=ROWS * BLOCK / ranks.world_size, lr_at=lambda step: 0.003, runtime=runtime,
        scaler=runtime.build_scaler(), max_steps=20, grad_clip=0.5, seed=0, state=TrainState(),
        on_step=lambda state, result: losses.append(result.loss) or seen.append(state.tokens_seen),
    )
    assert seen[-1] == 20 * ROWS * BLOCK
    return losses


with ranks.together():
    ranks.connect(torch.device("cpu"), compiling=False)
    kinds = [(way, *kind) for way in sys.argv[1:] for kind in ((False, 0), (True, 0), (False, 10), (True, 10))]
    losses = {" ".join(map(str, kind)): train(*kind) for kind in kinds}
    if ranks.first:
        print(json.dumps(losses))
"""


@pytest.mark.heavy
def test_uneven_masks_change_nothing(start: type[Job], tmp_path: Path) -> None:
    """Nor does it to run the blocks again for their gradients, or to hold the logits of ten tokens at a time."""
    program = tmp_path / "masked.py"
    program.write_text(MASKED)
    alone = subprocess.run([sys.executable, program, "none"], capture_output=True, text=True, check=True)
    expected = json.loads(alone.stdout)
    code, out, err = start("ddp", "fsdp", program=[program]).end()
    assert code == 0, err
    found = json.loads(out)
    assert len(found) == 8
    for losses in [*found.values(), *expected.values()]:
        assert losses == pytest.approx(expected["none False 0"], abs=1e-5)
    assert expected["none False 0"][-1] < expected["none False 0"][0] - 0.01


# The most memory that a rank holds in a step, measured and estimated; and what it holds between two micro-batches.
MEASURED = """
import json, sys, torch
from functools import partial
from glassgpt.costs.flops import count_parameters
from glassgpt.costs.memory import estimate_step_memory
from glassgpt.costs.typical import random_batch
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.runtime import device
from glassgpt.runtime.distributed import join_ranks
from glassgpt.training.fit import train_step
from glassgpt.training.losses import next_token_loss
from glassgpt.training.optimizers import OptimizerConfig, build_optimizer
sys.path.append(sys.argv[1])
from live_bytes import LiveBytes

ranks, rows, config = join_ranks(), 4, GPT2Config(vocab_size=300, block_size=32, n_layer=3, n_head=4, n_embd=64)
gathered_in, report = device.gathered_in, []


def measure(parallel, passes, kind="cpu", chunk=None, recompute=False):
    precision = "float32" if kind == "cpu" else "bfloat16"
    device.gathered_in = lambda precision, device_type: gathered_in(precision, kind)  # as on a GPU, but on the CPU
    runtime = device.build_runtime(
        "cpu", precision, ranks=ranks, parallel=parallel, activation_checkpointing=recompute
    )
    between = []

    def loss(model, batch):
        gradients = [p.grad for p in model.parameters() if parallel == "fsdp" and p.grad is not None]
        between.append((live.live, sum(gradient.to_local().numel() for gradient in gradients)))
        return next_token_loss(model, batch, chunk=chunk)

    with LiveBytes() as live:
        model = GPT2(config)
        wrapped = runtime.wrap(model, loss, in_parts=chunk is not None)
        optimizer = build_optimizer(model, OptimizerConfig())
        for step in range(3):
            between.clear()
            live.peak = 0
            batches = [random_batch(model, rows, runtime.device) for _ in range(passes)]
            train_step(wrapped, optimizer, runtime.build_scaler(), batches, runtime, grad_clip=1.0, seed=0, step=step,
                       expected_weight=rows * passes * config.block_size)
    memory = estimate_step_memory(
        "gpt2", config, OptimizerConfig(), precision=precision, device_type=kind, activation_checkpointing=recompute,
        loss_chunk=chunk, parallel=parallel, ranks=ranks.world_size,
    )
    report.append({"case": [parallel, passes, kind], "measured": live.peak, "between": between,
                   "estimate": memory.peak(rows, accumulates=passes > 1)})


with ranks.together():
    ranks.connect(torch.device("cpu"), compiling=False)
    measure("ddp", 3)
    measure("fsdp", 1)
    measure("fsdp", 3)
    measure("fsdp", 2, chunk=20, recompute=True)
    measure("fsdp", 2, "cuda")
    if ranks.first:
        print(json.dumps([count_parameters(GPT2(config)), report]))
"""


@pytest.mark.heavy
def test_a_rank_holds_what_is_estimated(start: type[Job], tmp_path: Path) -> None:
    """Of an FSDP rank that is a part of each gradient, also between two micro-batches, and never the whole."""
    program = tmp_path / "measured.py"
    program.write_text(MEASURED)
    code, out, err = start(Path(__file__).parents[1] / "costs", program=[program]).end()
    assert code == 0, err
    n_parameters, report = json.loads(out)
    for case in report:
        assert case["estimate"] == pytest.approx(case["measured"], rel=0.1), case["case"]
    (three,) = [case for case in report if case["case"] == ["fsdp", 3, "cpu"]]
    held, gradients = zip(*three["between"], strict=True)
    assert gradients == (0, n_parameters / 2, n_parameters / 2)
    assert max(held) - held[0] < 0.8 * 4 * n_parameters


@pytest.mark.heavy
def test_a_run_saved_by_two_ranks_goes_on_with_one_and_back(
    start: type[Job], text_file: Path, tmp_path: Path, alone: Path
) -> None:
    run = tmp_path / "run"
    begin = ["char-tiny", "--data", text_file, "--parallel", "fsdp", *SETTINGS, "--max-steps", 7]
    code, _, err = start("train", "--run", run, *begin).end()
    assert code == 0, err
    result = glassgpt("train", "--run", run, "--resume", "--max-steps", 13)
    assert result.code == 0, result.err
    code, _, err = start("train", "--run", run, "--resume", "--parallel", "ddp", "--max-steps", STEPS).end()
    assert code == 0, err
    assert_same_losses(run, alone)


# As for a model of billions of parameters: each set of tensors in several files.
DIVIDED = """
from glassgpt.cli.main import main
from glassgpt.training import tensor_files

tensor_files.MAX_FILE_BYTES = 20_000
main()
"""


@pytest.mark.heavy
def test_a_divided_checkpoint_of_two_ranks_goes_on_with_one_and_with_three(
    start: type[Job], text_file: Path, tmp_path: Path
) -> None:
    """Of six rows a step, and of parameters of 32 rows, which three ranks cannot share evenly."""
    program = tmp_path / "divided.py"
    program.write_text(DIVIDED)
    run, alone = tmp_path / "run", tmp_path / "alone"
    begin = ["char-tiny", "--data", text_file, *SETTINGS, "--set", "training.batch_tokens=192"]
    result = glassgpt("train", "--run", alone, *begin)
    assert result.code == 0, result.err
    way = ["--parallel", "fsdp", "--max-steps", 7]
    code, out, err = start("train", "--run", run, *begin, *way, program=[program]).end()
    assert code == 0, err
    assert "sample" not in out  # a sample would need the whole model on one device
    assert len(list(last_checkpoint(run).glob("optimizer-*-of-*.safetensors"))) > 10
    first, expected = (folder / "checkpoints" / "step-00000000" for folder in (run, alone))
    parts = {name: tensor for file in first.glob("model-*") for name, tensor in load_file(file).items()}
    assert parts.keys() == load_file(expected / "model.safetensors").keys()
    for name, tensor in load_file(expected / "model.safetensors").items():
        assert torch.equal(parts[name], tensor), name
    result = glassgpt("train", "--run", run, "--resume", "--max-steps", 13)
    assert result.code == 0, result.err
    assert (last_checkpoint(run) / "optimizer.safetensors").exists()
    way = ["--resume", "--parallel", "fsdp", "--max-steps", STEPS]
    code, _, err = start("train", "--run", run, *way, program=[program], ranks=3).end()
    assert code == 0, err
    assert_same_losses(run, alone)


def test_a_signal_to_one_rank_stops_all_after_the_same_step(start: type[Job], text_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = start("train", "char-tiny", "--data", text_file, "--run", run, *ENDLESS)
    job.wait_for("step     5/")
    os.kill(job.ranks()[1], signal.SIGTERM)
    code, _, err = job.end()
    assert code == 1  # torchrun's own
    assert "exitcode  : 143" in err
    steps = [line["step"] for line in figures(run) if "lr" in line]
    assert last_checkpoint(run).name == f"step-{steps[-1]:08d}"
    assert "--resume" in err


def test_a_rank_that_dies_ends_the_job_with_a_sentence(start: type[Job], text_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = start("train", "char-tiny", "--data", text_file, "--run", run, *ENDLESS)
    job.wait_for("step     5/")
    os.kill(job.ranks()[1], signal.SIGKILL)
    code, _, err = job.end()
    assert code == 1
    assert "glassgpt: rank 0 has lost the other ranks" in err
    assert "RuntimeError" not in err
    result = glassgpt("train", "--run", run, "--resume", "--max-steps", 30)
    assert result.code == 0, result.err


# One rank alone fails as it builds its session.
FAILING = """
import os
from glassgpt.cli.main import main
from glassgpt.errors import UserError
from glassgpt.runs import train

def fail(*arguments):
    raise UserError("this rank has no memory left")

if os.environ["RANK"] == "1":
    train.WHERE = fail
main()
"""


@pytest.mark.parametrize("where", ["_build_model", "Session"])
def test_an_error_of_one_rank_is_reported_at_once(
    start: type[Job], text_file: Path, tmp_path: Path, where: str
) -> None:
    program = tmp_path / "failing.py"
    program.write_text(FAILING.replace("WHERE", where))
    job = start("train", "char-tiny", "--data", text_file, "--run", tmp_path / "run", *SETTINGS, program=[program])
    code, _, err = job.end()
    assert code == 1
    assert "rank 1: this rank has no memory left" in err
    assert not (tmp_path / "run").exists()


def test_what_ranks_cannot_share_is_said_once(start: type[Job], text_file: Path, tmp_path: Path) -> None:
    odd = ["--set", "training.batch_tokens=288"]
    code, _, err = start("train", "char-tiny", "--data", text_file, "--run", tmp_path / "run", *SETTINGS, *odd).end()
    assert code == 1
    (sentence,) = [line for line in err.splitlines() if line.startswith("glassgpt: ")]
    assert "288 is 9 rows of model.block_size = 32, which 2 ranks cannot share evenly: try 256 or 320" in sentence
    assert not (tmp_path / "run").exists()


class Devices(Job):
    """`glassgpt train … --devices 2`, which starts the ranks itself."""

    def __init__(self, *arguments: object) -> None:
        Command.__init__(self, "train", *arguments, "--devices", 2)


def test_devices_train_as_one_from_stdin_and_go_on(text_file: Path, tmp_path: Path, alone: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "glassgpt", "train", "--run", run, "--devices", 2, "--json"]

    def train(*options: object) -> subprocess.CompletedProcess[str]:
        with text_file.open() as text:
            return subprocess.run([*map(str, (*command, *options))], stdin=text, capture_output=True, text=True)

    first = train("char-tiny", "--data", "-", *SETTINGS, "--max-steps", 12)
    assert first.returncode == 0, first.stderr
    assert "2 ranks with ddp" in first.stderr and first.stderr.count("step    12/12") == 1
    second = train("--resume", "--max-steps", STEPS)
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["steps"] == STEPS
    losses = [line["train/loss"] for line in figures(alone) if "lr" in line]
    assert [line["train/loss"] for line in figures(run) if "lr" in line] == pytest.approx(losses, abs=1e-5)


def test_ctrl_c_saves_on_all_devices(end_commands: None, text_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = Devices("--data", text_file, "--run", run, *ENDLESS)
    job.wait_for("step     5/")
    code, out, err = job.end(signal.SIGINT)
    assert (code, out) == (130, "")
    steps = [line["step"] for line in figures(run) if "lr" in line]
    assert last_checkpoint(run).name == f"step-{steps[-1]:08d}"
    *before, last = [line for line in err.splitlines() if not line.startswith("step ")]
    assert last == f"stopped by a signal after step {steps[-1]}: saved in {run}, go on with --resume"
    # The first rank may learn of it from the second one, before its own signal arrives.
    assert before in ([], ["finishing this step, then saving; Ctrl-C again stops at once"])


def test_a_device_that_dies_is_one_message(end_commands: None, text_file: Path, tmp_path: Path) -> None:
    job = Devices("--data", text_file, "--run", tmp_path / "run", *ENDLESS)
    job.wait_for("step     5/")
    os.kill(job.ranks()[1], signal.SIGKILL)
    code, out, err = job.end()
    assert (code, out) == (2, "")
    (sentence,) = [line for line in err.splitlines() if not line.startswith("step ")]
    assert sentence.startswith("glassgpt: rank 1 was ended by SIGKILL")


def test_several_ranks_need_devices(text_file: Path, elsewhere: Path) -> None:
    for parallel in ("ddp", "fsdp"):
        error = glassgpt("train", "char-tiny", "--data", text_file, "--parallel", parallel, *SETTINGS).error
        assert f"--parallel {parallel} is for several devices: add their number, for example --devices 2" in error
    assert "--devices 0 is out of range" in glassgpt("train", "char-tiny", "--data", text_file, "--devices", 0).error
    assert "'ddp'" in glassgpt("train", "char-tiny", "--data", text_file, "--parallel", "dpp", *SETTINGS).error
    assert not Path("runs").exists()


TORCHRUN = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"LOCAL_RANK": None}, ["LOCAL_RANK", "torchrun"]),
        ({"MASTER_PORT": None}, ["MASTER_PORT", "torchrun"]),
        ({"RANK": None}, ["RANK", "torchrun"]),
        ({"RANK": "2"}, ["RANK", "'2'", "0 to 1"]),
        ({"WORLD_SIZE": "two"}, ["WORLD_SIZE", "'two'"]),
        ({"MASTER_ADDR": "node0.invalid"}, ["MASTER_ADDR", "'node0.invalid'", "the first node"]),
        ({"MASTER_ADDR": "n" * 70}, ["MASTER_ADDR", "not a host name"]),
    ],
)
def test_variables_of_torchrun_without_torchrun(
    text_file: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], told: list[str]
) -> None:
    monkeypatch.setattr(distributed, "RESOLVE_SECONDS", 0.0)
    for name, value in (TORCHRUN | changes).items():
        if value is not None:
            monkeypatch.setenv(name, value)
    error = glassgpt("train", "char-tiny", "--data", text_file, *SETTINGS).error
    assert [words for words in told if words not in error] == [], error
    assert not Path("runs").exists()
