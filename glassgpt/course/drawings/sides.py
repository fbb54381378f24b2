"""The drawing of the page on encoders and decoders: who is heard at a hidden letter, and which letters have a loss."""

from __future__ import annotations

from glassgpt.course.drawings.canvas import Drawing, bend, frame, label, token

STEP = 42.0


def both_sides() -> Drawing:
    """The same word twice: a decoder hears the left side of a letter, an encoder both sides."""
    text, hidden, left = "the·king", 5, 52.0
    columns = [left + STEP * place for place in range(len(text))]
    parts = []
    for top, name, causal in ((0.0, "decoder", True), (206.0, "encoder", False)):
        row, answer, loss = top + 54, top + 126, top + 176
        parts.append(
            label(8, top + 16, f"{name}: {'the left side' if causal else 'both sides'}", anchor="start", bold=True)
        )
        for place, x in enumerate(columns):
            if place < hidden or (place > hidden and not causal):
                parts.append(bend(x, row + 16, columns[hidden], answer - 17, colour="attention", thick=2, opacity=0.7))
        for place, (x, letter) in enumerate(zip(columns, text, strict=True)):
            unseen = causal and place > hidden
            if place == hidden:
                parts.append(token(x, row, "?", colour="accent", thick=2.5))
            elif unseen:
                parts.append(
                    frame(x - 15, row - 15, 30, 30, fill="ground", round=5)
                    + label(x, row, letter, mono=True, size=17, colour="line")
                )
            else:
                parts.append(token(x, row, letter))
            if causal or place == hidden:
                parts.append(frame(x - 13, loss - 5, 26, 10, colour="accent", fill="accent", round=2))
            else:
                parts.append(frame(x - 13, loss - 5, 26, 10, fill="ground", round=2))
        parts += [
            token(columns[hidden], answer, text[hidden], colour="accent", thick=2.5),
            label(8, answer - 2, "finds", anchor="start", colour="quiet"),
            label(
                8,
                answer + 24,
                "has a loss: every letter" if causal else "has a loss: the hidden letter",
                anchor="start",
                colour="quiet",
            ),
        ]
    return Drawing(
        "A decoder hears the left side, an encoder both sides",
        "The word 'the king' twice, with a hidden i. In the decoder, lines lead to the answer from the letters to its "
        "left only. In the encoder, they lead there from both sides. Bars below say which letters have a loss: all of "
        "them in the decoder, and only the hidden one in the encoder.",
        398,
        parts,
    )
