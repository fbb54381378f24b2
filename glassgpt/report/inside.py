"""What is inside the model of a run: whom the tokens of its last sample hear, and which tokens are alike to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

from glassgpt.errors import UserError, counted
from glassgpt.inspection.embeddings import Neighbours, neighbours
from glassgpt.inspection.trace import attention_blocks
from glassgpt.models import Model
from glassgpt.report import page
from glassgpt.report.look import Look
from glassgpt.report.look.drawing import bar, labels_of, quoted
from glassgpt.report.look.pair import PairLook
from glassgpt.tokenizers import Tokenizer
from glassgpt.tokenizers.pieces import tokens_of

INSIDE, ATTENTION, NEIGHBOURS = "What is inside", "Whom does each token hear?", "Which tokens are alike to it?"
CROSS = "Where does it look to write each token?"
NOT_FINITE = "is not a finite number: training has diverged"
COMMONEST, NEAREST = 10, 5  # rows and columns of the table of neighbours


def inside_html(look: Look, sample: Sequence[int]) -> str:
    """Attention on the text of `look`, and the neighbours of the commonest tokens of `sample`, given as ids.

    A sentence takes the place of what the architecture lacks, or of what is not a number.
    """
    return f"{attention_html(look)}\n{neighbours_html(look.model, look.tokenizer, sample)}"


def attention_html(look: Look) -> str:
    """The heads with a name as small maps, and the clearest one as a large map with its tokens."""
    if not attention_blocks(look.model):  # sections 1 to 3 of the ladder
        return missing_html(ATTENTION, "This model has no attention.")
    heads = look.heads()
    if not heads.patterns.isfinite().all():
        return missing_html(ATTENTION, f"The attention of {look.source} {NOT_FINITE}.")
    view = heads.view(*heads.clearest[0])
    what = "A text that it was not trained on," if look.is_encoder else "The last sample"
    lead = f"{what} in {look.source}: its first {counted(len(look.ids), 'token')}. {heads.answer}"
    reading = (
        "Each row is a token, each column a token that it hears: the stronger the colour, the more of its attention it"
        f" gives. {view.answer}"
    )
    table = f'<div class="large" tabindex="0">{view.heads_html()}</div>'
    every = f"<details><summary>All heads</summary>\n{table}</details>\n" if any(heads.kinds.values()) else ""
    return (
        f'<h2>{ATTENTION}</h2>\n<p>{escape(lead)}</p>\n<div class="glassgpt-look">\n{heads.maps_html()}\n'
        f'<p>{escape(reading)}</p>\n<div class="large" tabindex="0">\n{view.picture_html()}\n</div>\n'
        f"{every}</div>"
    )


def pair_html(look: PairLook) -> str:
    """Cross-attention, from what an encoder-decoder writes to its source, in the head that is most decided."""
    if not look.trace.cross.isfinite().all():
        return missing_html(CROSS, f"The attention of {look.name} {NOT_FINITE}.")
    view = look.attention()
    lead = (
        "The source of the last sample, and what the model writes for it. Each column is a token of the source: the"
        f" stronger the colour, the more attention it gets. {view.answer}"
    )
    return (
        f'<h2>{CROSS}</h2>\n<p>{escape(lead)}</p>\n<div class="glassgpt-look">\n<div class="large" tabindex="0">\n'
        f"{view.picture_html()}\n</div>\n</div>"
    )


def neighbours_html(model: Model, tokenizer: Tokenizer, sample: Sequence[int]) -> str:
    """The commonest tokens of a sample, given as ids, and the tokens with the most similar embeddings."""
    common = Counter(sample).most_common(COMMONEST)
    try:
        found = [neighbours(model, id, NEAREST) for id, _ in common]
    except UserError as error:  # section 1 of the ladder
        return missing_html(NEIGHBOURS, f"{str(error).capitalize()}.")
    if not all(len(near.ids) for near in found):
        return missing_html(NEIGHBOURS, "The vocabulary has only one token.")
    if not all(near.similarities.isfinite().all() for near in found):
        return missing_html(NEIGHBOURS, f"The similarity of its tokens {NOT_FINITE}.")
    names = [quoted(label) for label in labels_of(tokens_of(tokenizer, [id for id, _ in common]))]
    rows = [
        (escape(name), f"{times}", *_cells(tokenizer, near))
        for name, (_, times), near in zip(names, common, found, strict=True)
    ]
    nearest = max(range(len(found)), key=lambda row: float(found[row].similarities[0]))
    (other,) = labels_of(tokens_of(tokenizer, found[nearest].ids[:1].tolist()))
    lead = (
        f"The {len(common)} commonest tokens of the last sample, and the tokens whose embeddings are the most similar."
        f" Of these, {names[nearest]} and {quoted(other)} are the most alike:"
        f" {float(found[nearest].similarities[0]):.2f}. The similarity is the cosine of the angle between two"
        " embeddings: 1 in the same direction, 0 at a right angle."
    )
    header = ("Token", "Times", "Nearest", "2nd", "3rd", "4th", "5th")[: len(rows[0])]
    return (
        f'<h2>{NEIGHBOURS}</h2>\n<p>{escape(lead)}</p>\n<div class="glassgpt-look large" tabindex="0">\n'
        f"{page.table(rows, header)}\n</div>"
    )


def _cells(tokenizer: Tokenizer, near: Neighbours) -> list[str]:
    """The neighbours of a token as HTML, each with its similarity as a number and as a bar."""
    labels = labels_of(tokens_of(tokenizer, near.ids.tolist()))
    return [
        bar(f"{quoted(label)} {similarity:.2f}", max(similarity, 0.0))
        for label, similarity in zip(labels, near.similarities.tolist(), strict=True)
    ]


def missing_html(title: str, reason: str) -> str:
    """A section that says why it is not there."""
    return f'<h2>{title}</h2>\n<p class="missing">{escape(reason)}</p>'
