"""Devices and precisions by name, seeds that never repeat, and the peak of a GPU by its name."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed
from torch.distributed import HashStore

from glassgpt.errors import ReportedByFirstRank, UserError
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.runtime import device as module
from glassgpt.runtime.device import Runtime, build_runtime, describe_machine
from glassgpt.runtime.distributed import Ranks

CPU = torch.device("cpu")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with nothing but a processor."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says it has two CUDA GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:-1", "cpu:0", "auto:0", "", "CPU"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"unknown device '{name}'.* Known: auto, cpu, cuda, cuda:0, mps"):
        build_runtime(name)


def test_the_nearest_device_is_offered() -> None:
    with pytest.raises(UserError, match=r"did you mean 'cuda'\?"):
        build_runtime("cudda")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps"])
def test_a_device_that_is_not_here_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"device '{name}' is not available: torch .* use the device 'cpu'"):
        build_runtime(name)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_beyond_the_last_is_refused() -> None:
    assert build_runtime("cuda:1", "bfloat16").device == torch.device("cuda:1")
    with pytest.raises(UserError, match=r"device 'cuda:2' is not available: torch sees 2 CUDA GPU\(s\)"):
        build_runtime("cuda:2")


@pytest.mark.usefixtures("no_gpu")
def test_auto_is_the_processor_in_float32_where_there_is_nothing_else() -> None:
    runtime = build_runtime()
    assert (runtime.device, runtime.precision, runtime.notes) == (CPU, "float32", ())
    assert runtime.describe().startswith("cpu, ")


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(("has_bfloat16", "precision"), [(True, "bfloat16"), (False, "float16")])
def test_auto_on_a_gpu(monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool, precision: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
    runtime = build_runtime()
    assert (runtime.device.type, runtime.precision) == ("cuda", precision)


@pytest.mark.parametrize(("name", "nearest"), [("bf16", "bfloat16"), ("float64", "float16"), ("flaot32", "float32")])
def test_an_unknown_precision_is_refused(name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=rf"unknown machine\.dtype '{name}': did you mean '{nearest}'\?"):
        build_runtime("cpu", name)


def test_what_cannot_be_had_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    tf32 = build_runtime("cpu", "tf32")
    assert tf32.precision == "float32"
    assert tf32.notes == ("tf32 exists on CUDA GPUs only: cpu runs in float32",)
    monkeypatch.setattr(module, "cpu_has_bfloat16", lambda: False)
    assert "emulates bfloat16" in build_runtime("cpu", "bfloat16").notes[0]
    monkeypatch.setattr(module, "cpu_has_bfloat16", lambda: True)
    assert build_runtime("cpu", "bfloat16").notes == ()
    assert "float16 on a CPU is slow" in build_runtime("cpu", "float16").notes[0]
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    compiled = build_runtime("cpu", compile=True)
    assert not compiled.compile
    assert compiled.notes == ("no C++ compiler (g++ or clang++) is on the PATH: the model runs uncompiled",)


@pytest.mark.parametrize(
    ("precision", "product"),
    [("float32", torch.float32), ("tf32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
)
def test_products_run_in_the_precision_and_weights_stay_float32(precision: str, product: torch.dtype) -> None:
    runtime = Runtime(CPU, precision)
    layer = nn.Linear(2, 2)
    with runtime.autocast():
        assert layer(torch.zeros(1, 2)).dtype == product
    assert layer.weight.dtype == torch.float32
    assert runtime.build_scaler().is_enabled() == (precision == "float16")


def test_a_compilation_that_fails_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/cache/of/torch")
    failure = BackendCompilerFailed("inductor", ImportError("x.so:\nfile too short"), None)
    explained = r"torch.compile failed \(x.so: file too short\).*remove /cache/of/torch and try again"
    with pytest.raises(UserError, match=explained), Runtime(torch.device("cpu"), "float32", compile=True).compiling():
        raise failure
    with pytest.raises(BackendCompilerFailed), Runtime(torch.device("cpu"), "float32").compiling():
        raise failure


def test_an_uncompiled_model_is_called_as_it_is() -> None:
    layer = nn.Linear(2, 2)
    assert Runtime(CPU, "float32").wrap(layer, lambda model, batch: (model, batch))(3) == (layer, 3)


def test_every_seed_step_micro_step_and_rank_draws_its_own_numbers() -> None:
    """Neighbours, swapped places and far steps too."""
    values = (0, 1, 2, 3, 100_000)
    seen = set()
    for seed, step, micro_step, rank in itertools.product(values, repeat=4):
        Runtime(CPU, "float32", ranks=Ranks(rank, 4)).seed_dropout(seed, step, micro_step)
        seen.add(torch.initial_seed())
    assert len(seen) == len(values) ** 4
    assert all(0 <= seed < 1 << 63 for seed in seen)


def test_the_same_place_draws_the_same_numbers_whatever_ran_before() -> None:
    runtime = Runtime(CPU, "float32", ranks=Ranks(2, 4))
    draws = []
    for spent in (0, 7):
        torch.rand(spent)
        runtime.seed_dropout((1 << 63) - 1, 10, 3)
        draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[1])


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA B200", 2250e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA GH200 144G HBM3e", 989e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H800", 989e12),
        ("NVIDIA H800 PCIe", 756e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100-PCIE-40GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA A800-SXM4-80GB", 312e12),
        ("NVIDIA A800 80GB PCIe", 312e12),
        ("NVIDIA A800 40GB Active", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA A40", 150e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA RTX A6000", 155e12),
        ("NVIDIA RTX 6000 Ada Generation", 364e12),
        ("NVIDIA GeForce RTX 5090", 209e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA GeForce RTX 3090", 71e12),
        ("GeForce RTX 3090", 71e12),  # drivers before 2021 left the maker out
        ("Tesla V100-SXM2-16GB", 125e12),
        ("Tesla T4", 65e12),
        ("NVIDIA GeForce RTX 5090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("Quadro RTX 6000", None),  # Turing, of 2018
        ("NVIDIA L40", None),
        ("Tesla V100-PCIE-16GB", None),  # 112 TFLOP/s
        ("NVIDIA RTX A1000 Laptop GPU", None),
        ("NVIDIA T400", None),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_the_peak_of_a_gpu_is_that_of_its_whole_name(
    monkeypatch: pytest.MonkeyPatch, name: str, peak: float | None
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    gpu = torch.device("cuda")
    assert Runtime(gpu, "bfloat16").peak_flops == peak
    assert Runtime(gpu, "float32").peak_flops is None
    assert Runtime(CPU, "bfloat16").peak_flops is None


def test_a_machine_is_described_in_plain_values() -> None:
    described = describe_machine(Runtime(CPU, "float32", ranks=Ranks(world_size=2), parallel="ddp"))
    assert described["torch"] == torch.__version__
    assert described["device"].startswith(f"cpu, {torch.get_num_threads()} thread")
    assert described["processor"]
    assert {type(value) for value in described.values()} <= {str, int, bool}
    assert Runtime(CPU, "float32", ranks=Ranks(world_size=2), parallel="fsdp").describe().endswith("2 ranks with fsdp")


@pytest.mark.usefixtures("two_gpus")
def test_what_a_gpu_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    old = build_runtime("cuda", "tf32")
    assert old.precision == "float32"
    assert old.notes == ("this GPU is older than TF32 (Ampere, 2020): it runs in float32",)
    assert build_runtime("cuda", "bfloat16").notes == (
        "this GPU emulates bfloat16, slower than float32; float16 is fast on it",
    )
    compiled = build_runtime("cuda", "float16", compile=True)
    assert not compiled.compile
    assert compiled.notes == (
        "Triton, which torch.compile needs on a GPU, is not installed: the model runs uncompiled",
    )


@pytest.mark.usefixtures("two_gpus")
def test_compiling_on_a_gpu_needs_a_c_compiler_and_pythons_headers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Triton builds a C file when it first runs: without both, the first step would end in a traceback."""
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: "triton")
    monkeypatch.setattr(module.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.delenv("CC", raising=False)
    without_compiler = build_runtime("cuda", "float16", compile=True)
    assert not without_compiler.compile
    assert without_compiler.notes == (
        "no C compiler (gcc or clang), which torch.compile needs on a GPU, is on the PATH: the model runs uncompiled",
    )
    monkeypatch.setenv("CC", "/opt/gcc")
    without_headers = build_runtime("cuda", "float16", compile=True)
    assert not without_headers.compile
    assert without_headers.notes == (
        f"Python.h (python3-dev), which torch.compile needs on a GPU, is not in {tmp_path}: the model runs uncompiled",
    )
    (tmp_path / "Python.h").touch()
    complete = build_runtime("cuda", "float16", compile=True)
    assert complete.compile and complete.notes == ()


@pytest.mark.usefixtures("two_gpus")
def test_tf32_does_not_outlast_its_runtime() -> None:
    build_runtime("cuda", "tf32")
    assert torch.get_float32_matmul_precision() == "high"
    build_runtime("cpu")
    assert torch.get_float32_matmul_precision() == "highest"


# Ranks


def ranks(rank: int = 0, world_size: int = 2, **fields: Any) -> Ranks:
    """A place in a job; nobody else is there."""
    return Ranks(rank, world_size, rank, world_size, store=HashStore(), **fields)


def test_ranks_share_a_row_of_things_without_gap_or_overlap() -> None:
    for n, world_size in itertools.product((0, 1, 5, 12), (1, 2, 3, 7)):
        parts = [range(*Ranks(rank, world_size).rank_slice(n)) for rank in range(world_size)]
        assert [number for part in parts for number in part] == list(range(n))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_several_ranks_take_ddp_where_nothing_is_said() -> None:
    assert build_runtime("cpu", ranks=ranks()).parallel == "ddp"
    assert build_runtime("cpu", ranks=ranks(world_size=1)).parallel == "none"
    assert build_runtime("cpu", ranks=ranks(world_size=1), parallel="fsdp").parallel == "fsdp"
    assert build_runtime("cpu").parallel == "none"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parallel": "none"}, "there are 2 ranks, and --parallel none is for one: use ddp or fsdp"),
        ({"parallel": "dpp"}, r"unknown machine\.parallel 'dpp': did you mean 'ddp'\?"),
        ({"parallel": "fsdp", "precision": "float16"}, "--parallel fsdp has no loss scaling for float16"),
    ],
)
def test_what_does_not_go_with_ranks_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_runtime("cpu", ranks=ranks(), **arguments)


@pytest.mark.usefixtures("two_gpus")
def test_each_rank_of_a_node_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    assert build_runtime("cuda", ranks=ranks(1)).device == torch.device("cuda:1")
    with pytest.raises(UserError, match=r"'cuda:0' is one GPU for 2 ranks: use --device cuda"):
        build_runtime("cuda:0", ranks=ranks())
    with pytest.raises(UserError, match=r"4 ranks on a machine on which torch sees 2 CUDA GPU\(s\)"):
        build_runtime("cuda", ranks=ranks(2, 4))
    with pytest.raises(UserError, match="use --devices 2"):  # the first rank says it for all
        build_runtime("cuda", ranks=ranks(0, 4))


def test_an_idle_processor_is_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "cpu_count", lambda: 16)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    (note,) = build_runtime("cpu", ranks=ranks()).notes
    assert "set OMP_NUM_THREADS=8 to use more" in note
    assert build_runtime("cpu").notes == ()


def test_an_error_of_the_first_rank_is_raised_by_the_others_and_said_by_none_of_them() -> None:
    store = HashStore()
    first, second = (Ranks(rank, 2, store=store) for rank in range(2))

    def fail() -> None:
        raise UserError("no such file")

    with pytest.raises(UserError, match="no such file"):
        first.on_first(fail)
    with pytest.raises(ReportedByFirstRank, match="no such file"):
        second.on_first(fail)
    assert first.on_first(lambda: [1, 2]) == second.on_first(lambda: [3]) == [1, 2]


def test_only_json_goes_through_the_store() -> None:
    """A pickle would execute whatever reaches the port."""
    first, second = (Ranks(rank, 2, store=store) for store in [HashStore()] for rank in range(2))
    with pytest.raises(TypeError, match="not JSON serializable"):
        first.on_first(lambda: Path("runs"))
    first, second = (Ranks(rank, 2, store=store) for store in [HashStore()] for rank in range(2))
    decided = {"folder": "runs/x", "step": None, "lr": 0.1, "é": [True, 1 << 62]}
    first.on_first(lambda: decided)
    assert second.on_first(dict) == decided


@pytest.mark.parametrize("failing", [(), (0,), (1,), (0, 2), (1, 2)])
def test_an_error_on_any_rank_is_reported_by_one_and_raised_by_all(failing: tuple[int, ...]) -> None:
    store = HashStore()

    def work(rank: int) -> str:
        if rank in failing:
            raise UserError(f"nothing at {rank}")
        return f"done {rank}"

    def on_rank(rank: int) -> str:
        try:
            return Ranks(rank, 3, store=store).on_all(lambda: work(rank))
        except ReportedByFirstRank as error:
            return f"quiet: {error}"
        except UserError as error:
            return f"reports: {error}"

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(on_rank, range(3)))
    if not failing:
        assert found == ["done 0", "done 1", "done 2"]
    else:
        reporter = failing[0]
        expected = [f"{'reports' if rank == reporter else 'quiet'}: nothing at {reporter}" for rank in range(3)]
        assert found == expected


def test_the_others_of_a_node_find_what_its_first_rank_has_made() -> None:
    store, made, order = HashStore(), [], []

    def work(rank: int) -> None:
        order.append(rank)
        if rank in (0, 2):  # the first of each node
            made.append(rank // 2)
        assert rank // 2 in made

    def on_rank(rank: int) -> None:
        Ranks(rank, 4, rank % 2, 2, rank // 2, store).on_all(lambda: work(rank), first_of_node_first=True)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(on_rank, (3, 1, 2, 0)))
    assert sorted(order) == [0, 1, 2, 3]


def test_recomputed_blocks_keep_their_names_and_their_dropout() -> None:
    torch.manual_seed(0)
    model = GPT2(GPT2Config(13, 8, n_layer=2, n_head=2, n_embd=16, dropout=0.3))
    names = list(model.state_dict())
    tokens = torch.randint(13, (2, 8))
    gradients = []
    for recompute in (False, True):
        called = Runtime(CPU, "float32", activation_checkpointing=recompute).wrap(
            model, lambda model, tokens: model(tokens)
        )
        torch.manual_seed(1)
        model.zero_grad()
        called(tokens).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    assert list(model.state_dict()) == names
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_a_decision_may_be_larger_than_the_store_takes() -> None:
    """torchrun's store refuses values of more than 8 MiB; the vocabulary of a large tokenizer in JSON is longer."""
    store = HashStore()
    vocabulary = [f"приклад-{number}" for number in range(300_000)]
    Ranks(0, 2, store=store).on_first(lambda: vocabulary)
    assert Ranks(1, 2, store=store).on_first(list) == vocabulary
    assert len(store.get("first 1")) < 8 << 20 < len(json.dumps(vocabulary))
