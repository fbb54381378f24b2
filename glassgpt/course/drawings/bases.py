"""The drawing of the page on meaning: what stays the same when queries and keys are written in other axes."""

from __future__ import annotations

from glassgpt.course.drawings.canvas import Drawing, arrow, cells, label, line, number

Vector = tuple[float, float]


def meaning() -> Drawing:
    """A query and two keys, before and after a turn: other numbers, the same dot products."""
    query, keys = (2.0, 1.0), ((2.0, 2.0), (-2.0, 2.0))
    cos, sin = 0.6, 0.8  # a turn by 53 degrees, with few digits

    def turned(vector: Vector) -> Vector:
        x, y = vector
        return cos * x - sin * y, sin * x + cos * y

    parts = []
    for centre, title, change in ((102, "as trained", lambda vector: vector), (298, "turned by R", turned)):
        q, (k1, k2) = change(query), [change(key) for key in keys]
        parts.append(label(centre, 14, title, bold=True))
        parts += _plane(centre, 138, {"q": q, "k₁": k1, "k₂": k2})
        for y, vector, colour in ((214, q, "query"), (248, k1, "key"), (282, k2, "key")):
            parts.append(cells(centre - 44, y, vector, width=44, colour=colour, most=4, digits=1))
        for y, key in ((326, k1), (354, k2)):
            parts.append(label(centre, y, number(q[0] * key[0] + q[1] * key[1], 0), size=18, bold=True))
    for y, name, colour in ((214, "q", "query"), (248, "k₁", "key"), (282, "k₂", "key")):
        parts.append(label(8, y, name, anchor="start", bold=True, colour=colour))
        parts.append(label(200, y, "≠", size=18, colour="quiet"))
    for y, name in ((326, "q · k₁"), (354, "q · k₂")):
        parts.append(label(8, y, name, anchor="start", bold=True))
        parts.append(label(200, y, "=", size=18, bold=True))
    return Drawing(
        "Other numbers, the same scores",
        "Left: a query (2, 1) and two keys, (2, 2) and (−2, 2), as arrows in a plane. Right: all three are turned by "
        "the same angle, so every number of them is another. The dot products of the query with the keys are 6 and −2 "
        "on both sides.",
        374,
        parts,
    )


def _plane(x: float, y: float, arrows: dict[str, Vector]) -> list[str]:
    """Two axes around (x, y), and an arrow from there for each vector."""
    unit, reach, below = 32.0, 92.0, 40.0
    parts = [
        line((x - reach, y), (x + reach, y), colour="line"),
        line((x, y - reach), (x, y + below), colour="line"),
    ]
    for name, (a, b) in arrows.items():
        colour = "query" if name == "q" else "key"
        tip = (x + unit * a, y - unit * b)
        parts.append(arrow((x, y), tip, colour=colour, thick=2.5))
        length = (a * a + b * b) ** 0.5
        parts.append(label(tip[0] + 12 * a / length, tip[1] - 12 * b / length, name, bold=True, colour=colour))
    return parts
