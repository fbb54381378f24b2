"""Measures GlassGPT beside its peers, and writes docs/benchmarks.md with its pictures.

    python bench/benchmarks.py --nanogpt ../nanoGPT     # one part after another: less than 30 minutes
    python bench/benchmarks.py --only step              # this part again; the others keep their figures
    python bench/benchmarks.py --only ablation          # a part that takes longer than that is measured alone
    python bench/benchmarks.py --draw                   # the page alone, from the figures that are stored

The figures of each part are stored in bench/figures/, with their date, their command and the machine. So a part that
takes longer can be measured on another day, and the page shows all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from glassgpt.report.palette import INK, LINE, QUIET, SERIES, Colour
from glassgpt.report.svg import document, rectangle, text

ROOT = Path(__file__).resolve().parents[1]
WIDTH, LEFT, RIGHT = 400, 46, 384  # of a picture in pixels: it fits on a phone
ROW, TOP = 46, 40  # height of a bar with its name, and where the first one begins
BOTTOM = 250  # the horizontal axis of a picture with points
Figures = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A section of the page. `command` are the arguments of `glassgpt`, or a script of bench/ and its arguments.

    None: nothing is measured yet.
    """

    name: str
    title: str
    about: str
    command: tuple[str, ...] = ()
    with_nanogpt: bool = False
    with_llama_cpp: bool = False  # where it is installed
    long: bool = False  # takes longer than all others together: measured with --only
    table: Callable[[Figures], str] = lambda _: ""
    picture: Callable[[Figures], str] | None = None
    caption: str = ""


def speedrun_table(found: Figures) -> str:
    """A row for each contender: the medians of its seconds and losses, and their spread over the rounds."""
    rows = [
        [name, spread([one[key]["seconds"] for one in found["rounds"]], ".1f"),
         spread([one[key]["val_loss"] for one in found["rounds"]], ".4f")]
        for key, name, _ in CONTENDERS if found["rounds"][0].get(key)
    ]  # fmt: skip
    lines = [table(("contender", "seconds", "loss"), rows), ""]
    if found["ratio"] is None:
        lines.append(f"Not every round of `speedrun` ended at {found['target']:.4f} or below, so there is no ratio.")
    else:
        lines.append(f"`speedrun` reaches {found['target']:.4f} in 1/{1 / found['ratio']:.1f} of the control's time.")
    if found["ratio_nanogpt"] is not None:
        lines.append(f"That is 1/{1 / found['ratio_nanogpt']:.1f} of nanoGPT's time.")
    if found["val_loss_at_control_time"] is None:
        lines.append("In at least one round `modern-tiny` took longer than its control.")
    return "\n".join(lines)


CONTENDERS = (
    ("control", "char-tiny, the control", SERIES[0]),
    ("nanogpt", "nanoGPT", SERIES[6]),
    ("fast", "speedrun", SERIES[1]),
    ("far", "modern-tiny", SERIES[2]),
    ("open", "modern-tiny with counting", SERIES[3]),
)


def speedrun_picture(found: Figures) -> str:
    """The loss of each contender against its seconds: the curve where it was recorded, and where each round ended."""
    shown = [each for each in CONTENDERS if found["rounds"][0].get(each[0])]
    ends = [one[key] for one in found["rounds"] for key, _, _ in shown]
    last, target = max(end["seconds"] for end in ends) * 1.04, found["target"]
    low = min(end["val_loss"] for end in ends) - 0.05
    high = max(target, *(end["val_loss"] for end in ends)) + 0.2

    def place(seconds: float, loss: float) -> tuple[float, float]:
        return LEFT + (RIGHT - LEFT) * seconds / last, BOTTOM - (BOTTOM - TOP) * (loss - low) / (high - low)

    parts = [text(8, 20, "loss on the validation split, nats per character")]
    for loss in ticks(low, high):
        _, y = place(0, loss)
        parts += [line(LEFT, y, RIGHT, y, LINE), text(LEFT - 6, y + 4, f"{loss:.1f}", size=12, anchor="end")]
    for seconds in ticks(0, last):
        parts.append(text(place(seconds, low)[0], BOTTOM + 18, f"{seconds:.0f}", size=12, anchor="middle"))
    parts.append(text(RIGHT, BOTTOM + 36, "seconds of the whole process", anchor="end"))
    _, y = place(0, target)
    parts += [
        line(LEFT, y, RIGHT, y, QUIET, dash="4 3"),
        text(LEFT + 24, y - 8, f"the loss to reach: {target:.4f}", size=12, colour=QUIET),
    ]
    for number, (key, name, colour) in enumerate(shown):
        for one in found["rounds"]:
            curve = [place(*point) for point in one[key].get("curve", ()) if low <= point[1] <= high]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in curve)
            if len(curve) > 1:
                parts.append(f'<polyline points="{path}" fill="none" stroke="{colour.light}" stroke-width="1.5"/>')
            parts.append(dot(*place(one[key]["seconds"], one[key]["val_loss"]), colour))
        y = BOTTOM + 60 + 19 * number
        parts += [dot(LEFT, y - 4, colour), text(LEFT + 12, y, name)]
    height = BOTTOM + 52 + 19 * len(shown)
    return document(WIDTH, height, parts, [LINE, QUIET, *(colour for _, _, colour in shown)])


def minutes_table(found: Figures) -> str:
    """A row for each contender of each text and time."""
    rows = [
        [one["contender"], f"{one['val_loss']:.4f}", f"{one['seconds']:.1f}", one["data"], f"{one['minutes']:g}",
         f"{one['n_layer']} × {one['n_embd']}", f"{one['steps']:,}"]
        for one in found["rows"]
    ]  # fmt: skip
    return table(("contender", "loss", "seconds", "text", "minutes", "blocks × channels", "steps"), rows)


def ablation_table(found: Figures) -> str:
    """A row for each change, the most harmful first."""
    ordered = sorted(found["rows"], key=lambda row: -row["worse_by"])
    rows = [
        [row["variant"], f"{row['worse_by']:+.3f}", spread(row["losses"], ".3f"), spread(row["steps"], ",.0f")]
        for row in ordered
    ]
    return table(("change", "loss more", "loss", "steps"), rows)


def family_table(found: Figures) -> str:
    """A row for each change, in the order in which they were added."""
    rows = [
        [row["change"] if row["model"] in (None, row["change"]) else f"{row['change']} = {row['model']}",
         row["before"] or "–", around(row["differences"]), spread(row["losses"], ".3f"), spread(row["steps"], ",.0f"),
         f"{row['parameters']:,}"]
        for row in found["rows"]
    ]  # fmt: skip
    titles = ("change", "added to", "loss by it", "loss", "steps", "parameters")
    return table(titles, rows)


def around(differences: Sequence[float]) -> str:
    """The mean of some differences, the smallest and the largest; a dash where there is none."""
    if not differences:
        return "–"
    mean = sum(differences) / len(differences)
    return f"{mean:+.3f} ({min(differences):+.3f} to {max(differences):+.3f})"


def generation_table(found: Figures) -> str:
    """A row for each batch and kind of weights."""
    shown = [peer for peer in PEERS if found["rows"][0].get(peer) is not None]
    rows = [
        [str(row["batch"]), row["weights"], spread(row["rounds"], ",.1f"), f"{row['share_of_roof']:.0%}",
         *(times(row.get(f"ratio_to_{peer}")) for peer in shown)]
        for row in found["rows"]
    ]  # fmt: skip
    rates = spread([rate / 1e9 for rate in found["read_rates"]], ".1f")
    titles = ("batch", "weights", "tokens/s", "of the roof", *(f"× {PEERS[peer]}" for peer in shown))
    return f"{table(titles, rows)}\n\nMemory is read at {rates} GB per second."


PEERS = {"transformers": "transformers", "nanogpt": "nanoGPT", "llama_cpp": "llama.cpp"}


def generation_picture(found: Figures) -> str:
    """Bars of tokens per second at batch 1, with the roof of each kind of weights and the peers beside them."""
    rows = [row for row in found["rows"] if row["batch"] == min(each["batch"] for each in found["rows"])]
    bars = [(row["weights"], row["tokens_per_second"], row["tokens_per_second"] / row["share_of_roof"]) for row in rows]
    bars += [(name, rows[0][peer], None) for peer, name in PEERS.items() if rows[0].get(peer) is not None]
    return draw_bars(f"tokens per second at batch {rows[0]['batch']}; the line is the roof", bars)


def step_table(found: Figures) -> str:
    """A row for each contender and precision."""
    rows = [
        [row["contender"], row["precision"], spread([tokens_of(found) / each for each in row["rounds"]], ",.0f"),
         f"{row['share_of_matrix_rate']:.0%}", f"{row['loss']:.3f}"]
        for row in found["rows"]
    ]  # fmt: skip
    lines = [table(("contender", "dtype", "tokens/s", "of products", "loss"), rows), ""]
    lines.append(
        f"{found['parameters'] / 1e6:,.0f} million parameters, {tokens_of(found):,} tokens a step in rows of"
        f" {found['block_size']}. Products of large matrices run at "
        + " and ".join(f"{rate / 1e9:,.0f} GFLOP/s in {name}" for name, rate in found["matrix_rates"].items())
        + "."
    )
    for key, name in (("times_transformers", "transformers"), ("times_nanogpt", "nanoGPT")):
        if found[key] is not None:
            lines.append(f"{name} takes {found[key]:.2f} times as long as our first row.")
    return "\n".join(lines)


def step_picture(found: Figures) -> str:
    """Bars of tokens per second, each with what products alone would reach as its roof."""
    bars = []
    for row in found["rows"]:
        rate = row["tokens_per_second"]
        bars.append((f"{row['contender']}, {row['precision']}", rate, rate / row["share_of_matrix_rate"]))
    return draw_bars("tokens per second in training; the line is the roof", bars)


def tokens_of(found: Figures) -> int:
    """Tokens of a training step."""
    tokens: int = found["batch_rows"] * found["passes"] * found["block_size"]
    return tokens


PARTS = (
    Part(
        "speedrun",
        "How soon a small model is good",
        "Whole processes on Tiny Shakespeare, by turns: how soon `speedrun` reaches the loss of nanoGPT's CPU command,"
        " and how far `modern-tiny` comes in the time of `char-tiny`. The rules are in [the speedrun](speedrun.md).",
        ("bench", "speedrun"),
        with_nanogpt=True,
        table=speedrun_table,
        picture=speedrun_picture,
        caption="Loss on the validation split against seconds. A dot is the end of a process",
    ),
    Part(
        "minutes",
        "The best model in some minutes",
        "`glassgpt train --minutes` beside the next smaller and the next larger size in the same time, and beside"
        " `char-tiny`. Whole processes, one run each. How the size is chosen is in [planning](planning.md).",
        ("minutes.py", "--data", "shakespeare", "--minutes", "1", "--seed", "5"),
        table=minutes_table,
    ),
    Part(
        "minutes-longer",
        "The same in 3 and in 10 minutes",
        "A text as short as the Python manual is read 8 times at most, and so not for ten minutes; `train` says so.",
        (
            "minutes.py",
            "--data",
            "shakespeare",
            "--data",
            "python-manual",
            "--minutes",
            "3",
            "--minutes",
            "10",
            "--without-control",
            "--seed",
            "5",
        ),
        table=minutes_table,
        long=True,
    ),
    Part(
        "ablation",
        "What each part of the modern model is worth",
        "`modern-tiny` with one change at a time, in the same time with everything, three seeds. A difference that is"
        " smaller than that of the seeds counts as none. What follows from it is in the [log](log.md).",
        ("ablation.py", "--data", "shakespeare", "--minutes", "0.5", "--seeds", "3"),
        table=ablation_table,
        long=True,
    ),
    Part(
        "family",
        "From GPT-2 to GPT-oss",
        "A small decoder of about 0.8 million parameters on Tiny Shakespeare, one change after another, in the same"
        " time of training, three seeds. The loss by a change is the mean of the differences of equal seeds; one whose"
        " range crosses zero counts as none. Steps say how many the time was enough for. What each change is for is in"
        " [the family](family.md#from-gpt-2-to-gpt-oss-what-changed-and-what-it-is-worth-here).",
        ("family.py", "--data", "shakespeare", "--seconds", "50", "--seeds", "3"),
        table=family_table,
        long=True,
    ),
    Part(
        "generate",
        "Text",
        "GPT-2 124M continues texts, beside peers with the same weights in float32; nanoGPT has no KV cache. Every new"
        " token reads all weights once, so the rate at which memory is read is a roof ([generation](generation.md)).",
        ("bench", "generate", "--random", "gpt2-124m"),
        with_nanogpt=True,
        with_llama_cpp=True,
        table=generation_table,
        picture=generation_picture,
        caption="Tokens per second of each kind of weights, with the roof of each",
    ),
    Part(
        "step",
        "A training step",
        "GPT-2 124M, forward, backward, clipping and AdamW, on the same batches. The roof is a step that consists of"
        " matrix products alone. Its FLOPs are counted as in [planning](planning.md#parameters-and-arithmetic).",
        ("bench", "step", "gpt2-124m", "--set", "model.block_size=256", "--steps", "1", "--rounds", "5"),
        with_nanogpt=True,
        table=step_table,
        picture=step_picture,
        caption="Tokens per second of a training step of each contender, with the roof of its precision",
    ),
    Part(
        "gpu",
        "A training step on a GPU",
        "`glassgpt bench step gpt2-124m --device cuda --compile --rows 16 --nanogpt ../nanoGPT` is the command.",
    ),
)


def spread(values: Sequence[float], form: str) -> str:
    """The median, and the smallest and the largest value where they differ."""
    ordered = sorted(values)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    low, median, high = (format(value, form) for value in (ordered[0], middle, ordered[-1]))
    return median if low == high else f"{median} ({low} to {high})"


def fill(paragraph: str) -> str:
    """A paragraph in lines of 120 characters; no word is broken."""
    return textwrap.fill(paragraph, 120, break_long_words=False, break_on_hyphens=False)


def times(ratio: float | None) -> str:
    """A ratio, or a dash where there is none."""
    return "–" if ratio is None else f"{ratio:.2f}"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def line(x1: float, y1: float, x2: float, y2: float, colour: Colour, *, width: float = 1, dash: str = "") -> str:
    """A straight line."""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour.light}" stroke-width="{width}"{dashes}/>'


def dot(x: float, y: float, colour: Colour) -> str:
    """A filled circle."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour.light}"/>'


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high, three to eight of them."""
    power = 10.0 ** math.floor(math.log10((high - low) / 2))
    step = next(power * factor for factor in (1, 2, 5, 10) if (high - low) / (power * factor) <= 7)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def draw_bars(title: str, bars: Sequence[tuple[str, float, float | None]]) -> str:
    """Horizontal bars with a name and a number each, and a vertical line where its roof is."""
    largest = max(max(value, roof or 0.0) for _, value, roof in bars)
    parts = [text(8, 20, title, size=13)]
    for number, (name, value, roof) in enumerate(bars):
        y = TOP + ROW * number
        length = (RIGHT - 8) * value / largest
        label = f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"
        label += "" if roof is None else f" of {roof:,.0f}"
        parts += [text(8, y + 12, name), text(RIGHT, y + 12, label, anchor="end")]
        parts.append(rectangle(8, y + 18, length, 14, SERIES[0]))
        if roof is not None:
            x = 8 + (RIGHT - 8) * roof / largest
            parts.append(line(x, y + 15, x, y + 35, INK, width=2))
    return document(WIDTH, TOP + ROW * len(bars) + 6, parts, [SERIES[0]])


def measure(part: Part, nanogpt: Path | None, figures: Path) -> None:
    """Runs the command of a part and stores its figures."""
    first, *arguments = part.command
    is_script = first.endswith(".py")
    takes_part = part.with_nanogpt and nanogpt is not None
    arguments += ["--llama-cpp"] if part.with_llama_cpp and find_spec("xllamacpp") and find_spec("gguf") else []
    program = f"python bench/{first}" if is_script else f"glassgpt {first}"
    told = " ".join([program, *arguments, *(["--nanogpt", "../nanoGPT"] if takes_part else [])])
    print(told, file=sys.stderr)
    begin = [str(ROOT / "bench" / first)] if is_script else ["-P", "-m", "glassgpt", first]
    result = run_python([*begin, *arguments, *(["--nanogpt", str(nanogpt)] if takes_part else []), "--json"])
    today = datetime.now(UTC).date().isoformat()
    store = {"date": today, "command": told, "machine": describe(), "result": result}
    figures.mkdir(parents=True, exist_ok=True)
    (figures / f"{part.name}.json").write_text(json.dumps(store, indent=1) + "\n", encoding="utf-8")


def run_python(arguments: Sequence[str]) -> Figures:
    """What a Python program prints with these arguments. Raises SystemExit if it fails; it has said why."""
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed with exit code {done.returncode}")
    found: Figures = json.loads(done.stdout)
    return found


def describe() -> str:
    """The machine and the versions, in words."""
    from glassgpt.runtime.device import build_runtime, describe_machine

    found = describe_machine(build_runtime())
    versions = [f"Python {found['python']}", f"torch {found['torch']}"]
    with contextlib.suppress(PackageNotFoundError):
        versions.append(f"transformers {version('transformers')}")
    return ", ".join([f"{found['processor']}, {found['cores']} cores", found["device"], *versions])


def write_page(docs: Path, figures: Path) -> None:
    """docs/benchmarks.md, and its pictures in docs/benchmarks/."""
    (docs / "benchmarks").mkdir(parents=True, exist_ok=True)
    (docs / "benchmarks.md").write_text("\n\n".join(sections(docs, figures)) + "\n", encoding="utf-8")


def sections(docs: Path, figures: Path) -> Iterator[str]:
    """The page, section by section; writes the pictures on the way."""
    yield INTRODUCTION
    for part in PARTS:
        yield f"## {part.title}"
        yield fill(part.about)
        stored = figures / f"{part.name}.json"
        if not stored.exists():
            take = f" `python bench/benchmarks.py --only {part.name}` takes it." if part.command else ""
            yield f"*No figure yet.*{take}"
            continue
        found = json.loads(stored.read_text(encoding="utf-8"))
        yield part.table(found["result"])
        if part.picture is not None:
            picture = docs / "benchmarks" / f"{part.name}.svg"
            picture.write_text(part.picture(found["result"]), encoding="utf-8")
            yield f"![{part.caption}.](benchmarks/{picture.name})"
        yield fill(f"Measured on {found['date']}: {found['machine']}. Command: `{found['command']}`.")


INTRODUCTION = """# Benchmarks

<!-- Written by python bench/benchmarks.py: change that file, not this one. -->

How fast GlassGPT is, beside what you would use instead. `make bench` measures this again in less than half an hour
and writes this page; three tables take longer and have a command of their own. `make bench NANOGPT=../nanoGPT` lets a
checkout of nanoGPT take part.

All contenders of a table take turns in one run, so a slow minute of the machine meets all of them. What is not a whole
process is warmed up first. A figure is the median of its rounds, with the smallest and the largest in brackets. Compare
the ratios: the seconds of another machine are others."""


def main() -> None:
    """Measures what is asked for, then writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [part.name for part in PARTS if part.command]
    usual = [part.name for part in PARTS if not part.long]
    parser.add_argument("--nanogpt", type=Path, help="a checkout of karpathy/nanoGPT, which takes part")
    parser.add_argument("--only", action="append", choices=names, help="measure this part; repeatable")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the page is written")
    parser.add_argument("--figures", type=Path, default=ROOT / "bench" / "figures", help="where figures are stored")
    options = parser.parse_args()
    for part in PARTS:
        if part.command and not options.draw and part.name in (options.only or usual):
            measure(part, options.nanogpt, options.figures)
    write_page(options.docs, options.figures)


if __name__ == "__main__":
    main()
