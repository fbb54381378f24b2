"""The peak memory of `glassgpt import` for a Llama in four shards of bfloat16; a table in Markdown, on Linux.

    python bench/import_memory.py            # 434 MB of weights, less than a minute

The weights are random, so no hub is needed. Each verb runs in a process of its own, and its peak is the kernel's
(VmHWM). From it is taken what the process needs with the modules of the verb and no model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from glassgpt.interop.huggingface_export import hf_config
from glassgpt.interop.layouts import layout_of
from glassgpt.interop.tokenizer_export import tokenizer_json
from glassgpt.models.llama import Llama, LlamaConfig
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.training.tensor_files import index_name, index_of

MB = 1e6
SHARDS = 4
TEXT = "The quick brown fox jumps over the lazy dog.\n" * 3
PEAK = """
import sys
from pathlib import Path
from glassgpt.cli.main import main
code = 0
try:
    sys.argv[1:] and main()
    import glassgpt.runs.importing, glassgpt.runs.exporting
except SystemExit as end:
    code = end.code or 0
status = Path("/proc/self/status").read_text()
print("PEAK", next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), file=sys.stderr)
sys.exit(code)
"""


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    layers = parser.parse_args().layers
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sizes = write_llama(folder / "llama", layers)
        print(f"weights {sum(sizes) / MB:.0f} MB in shards of {', '.join(f'{size / MB:.0f}' for size in sizes)} MB\n")
        alone, _ = peak()
        print("| verb | peak above the modules, MB | seconds |\n| --- | --- | --- |")
        for verb in (
            ["import", str(folder / "llama"), "--run", str(folder / "run")],
            ["export", str(folder / "run"), "--format", "hf", "--out", str(folder / "out")],
            ["sample", str(folder / "run"), "--max-new-tokens", "2"],
        ):
            most, seconds = peak(*verb)
            print(f"| {verb[0]} | {(most - alone) / MB:.0f} | {seconds:.1f} |")
        weights = sum(file.stat().st_size for file in (folder / "run/checkpoints").rglob("*.safetensors"))
        print(f"\nthe modules {alone / MB:.0f} MB; the run's weights {weights / MB:.0f} MB on disk")


def peak(*verb: str) -> tuple[int, float]:
    """The peak memory of a verb in bytes, and its seconds. Without a verb, of the modules alone."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", PEAK, *verb], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    return 1024 * int(done.stderr.split("PEAK ")[-1]), seconds


def write_llama(folder: Path, layers: int) -> list[int]:
    """Writes a random Llama as `transformers` would; returns the bytes of its shards."""
    folder.mkdir()
    tokenizer = BPETokenizer.train(TEXT, 280, ["<|endoftext|>"])
    config = LlamaConfig(32000, 1024, layers, 16, 1024, n_kv_head=8, n_hidden=2816)
    with torch.device("meta"):
        model = Llama(config)
    layout = layout_of(model)
    named = {their: model.get_parameter(our).to(torch.bfloat16) for our, (their,) in layout.names(config)}
    room = sum(tensor.numel() for tensor in named.values()) / SHARDS
    names: list[list[str]] = [[] for _ in range(SHARDS)]
    done = 0
    for name, tensor in named.items():
        names[min(SHARDS - 1, int(done / room))].append(name)
        done += tensor.numel()
    files = {f"model-{n + 1:05d}-of-{SHARDS:05d}.safetensors": part for n, part in enumerate(names)}
    for file, part in files.items():
        drawn = {name: torch.empty(named[name].shape, dtype=torch.bfloat16).normal_(std=0.02) for name in part}
        save_file(drawn, folder / file, {"format": "pt"})
    contents = {
        index_name("model.safetensors"): index_of(files, named),
        "config.json": hf_config(layout, config, None) | {"dtype": "bfloat16"},
        "tokenizer.json": tokenizer_json(tokenizer),
    }
    for file, content in contents.items():
        (folder / file).write_text(json.dumps(content))
    return [(folder / file).stat().st_size for file in files]


if __name__ == "__main__":
    main()
