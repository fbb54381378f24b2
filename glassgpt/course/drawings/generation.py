"""The drawings of the pages about generation: how one token is drawn, and what a KV cache keeps."""

from __future__ import annotations

from collections.abc import Sequence

from glassgpt.course.drawings.canvas import Drawing, ink, label, line, token

LETTERS = "aeiou"
PROBABILITIES = (0.50, 0.20, 0.15, 0.10, 0.05)  # the worked example of the page


def sampling() -> Drawing:
    """One distribution of five tokens, and what each rule makes of it, with true numbers."""
    panels = (
        ("temperature 1", PROBABILITIES),
        ("greedy", keep(1)),
        ("temperature 0.5", tempered(0.5)),
        ("temperature 2", tempered(2.0)),
        ("top-k, k = 2", keep(2)),
        ("top-p, p = 0.8", keep(3)),  # 0.50 + 0.20 is less than 0.8, and with 0.15 it is more
    )
    parts = []
    for i, (name, probabilities) in enumerate(panels):
        left, top = 6.0 + 202 * (i % 2), 12.0 + 176 * (i // 2)
        parts.append(label(left + 93, top, name, bold=True))
        parts += bars(left, top + 118, probabilities)
    return Drawing(
        "One distribution, and five ways to choose from it",
        "Six bar charts of the same five tokens. Temperature 1 leaves the probabilities as they are: "
        f"{percents(PROBABILITIES)}. Greedy gives all to the first token. Temperature 0.5 makes the first bar higher: "
        f"{percents(tempered(0.5))}. Temperature 2 makes the bars more equal: {percents(tempered(2.0))}. "
        f"Top-k with k = 2 keeps two tokens, {percents(keep(2)[:2])}. Top-p with p = 0.8 keeps three, "
        f"{percents(keep(3)[:3])}.",
        506,
        parts,
    )


def kv_cache() -> Drawing:
    """Which keys and values each step computes, without a cache and with one."""
    letters = "ROMEO"
    steps, size = len(letters), 30.0
    parts = []
    for left, name, cached in ((8.0, "without a cache", False), (230.0, "with a cache", True)):
        parts.append(label(left + steps * size / 2, 14, name, bold=True))
        parts += [token(left + size * (i + 0.5), 44, letter, size=24) for i, letter in enumerate(letters)]
        for step in range(steps):
            for place in range(step + 1):
                new = place == step or not cached
                parts.append(pair(left + size * place + 2, 68 + 34 * step, size - 4, new))
        computed = steps if cached else sum(range(steps + 1))
        parts.append(label(left + steps * size / 2, 252, f"computed: {computed}", bold=True))
    parts += [label(200, 85 + 34 * step, str(step + 1), colour="quiet") for step in range(steps)]
    parts.append(label(194, 44, "step", colour="quiet"))
    for y, new, meaning in ((278, True, "key and value, computed in this step"), (314, False, "kept from before")):
        parts += [pair(74, y, 26, new), label(110, y + 13, meaning, anchor="start")]
    return Drawing(
        "The keys and values of earlier tokens are computed once",
        "Five steps that read the letters R, O, M, E, O. Without a cache, each step computes the key and the value of "
        "every letter so far: 1, 2, 3, 4 and 5, which is 15 in all. With a cache, each step computes those of the "
        "newest letter and takes the others from the cache: 5 in all.",
        348,
        parts,
    )


def tempered(temperature: float) -> tuple[float, ...]:
    """The probabilities at this temperature: p to the power 1/T, made to sum to 1."""
    return normalised([probability ** (1 / temperature) for probability in PROBABILITIES])


def keep(count: int) -> tuple[float, ...]:
    """The first `count` probabilities, made to sum to 1, and zeros."""
    return normalised([probability if i < count else 0.0 for i, probability in enumerate(PROBABILITIES)])


def normalised(shares: Sequence[float]) -> tuple[float, ...]:
    """The shares, divided by their sum."""
    return tuple(share / sum(shares) for share in shares)


def percents(probabilities: Sequence[float]) -> str:
    """Such as 50%, 20%."""
    return ", ".join(f"{probability:.0%}" for probability in probabilities)


def bars(left: float, bottom: float, probabilities: Sequence[float]) -> list[str]:
    """A bar for each token, its share above it. A token that cannot be chosen has a quiet letter and no bar."""
    room, step, width = 84.0, 38.0, 26.0
    parts = []
    for i, (letter, probability) in enumerate(zip(LETTERS, probabilities, strict=True)):
        centre, height = left + step * (i + 0.5), room * probability
        if probability:
            top = f'y="{bottom - height:.1f}" width="{width:g}" height="{height:.1f}"'
            parts.append(f'<rect x="{centre - width / 2:g}" {top} fill="{ink("accent")}"/>')
            parts.append(label(centre, bottom - height - 9, f"{probability:.0%}"))
        parts.append(label(centre, bottom + 12, letter, mono=True, size=15, colour="text" if probability else "quiet"))
    return [*parts, line((left, bottom), (left + step * len(LETTERS), bottom), colour="line")]


def pair(x: float, y: float, width: float, new: bool) -> str:
    """A key and a value side by side: filled if they are computed now, faint if they are kept."""
    opacity = 0.85 if new else 0.1
    return "".join(
        f'<rect x="{x + i * width / 2:g}" y="{y:g}" width="{width / 2:g}" height="26" fill="{ink(name)}" '
        f'fill-opacity="{opacity:g}" stroke="{ink(name)}" stroke-opacity="{0.9 if new else 0.45:g}"/>'
        for i, name in enumerate(("key", "value"))
    )
