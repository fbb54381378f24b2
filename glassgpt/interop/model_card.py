"""The model card of an export: the model, its training data, its validation loss, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glassgpt.interop.layout import Layout
from glassgpt.models import Kind, find_architecture

TASKS: dict[Kind, str] = {
    "decoder": "text-generation", "encoder": "fill-mask", "encoder-decoder": "text2text-generation",
}  # fmt: skip
CODE: dict[Kind, str] = {  # how a reader of the card loads the model
    "decoder": """\
from transformers import pipeline

write = pipeline("text-generation", "NAME")""",
    "encoder": """\
from transformers import pipeline

find = pipeline("fill-mask", "NAME")  # a text in which the mask token, find.tokenizer.mask_token, hides a token""",
    "encoder-decoder": """\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained("NAME"), AutoTokenizer.from_pretrained("NAME")
source = tokenizer("source", return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(source)[0], skip_special_tokens=True))""",
}
CARD = """\
---
library_name: transformers
pipeline_tag: {task}
tags:
- glassgpt
- {tag}
---

# {name}

A {family} of {parameters:,} parameters, written by GlassGPT.

```python
{code}
```

{facts}

## Settings

```toml
{settings}
```
"""


def model_card(name: str, layout: Layout, parameters: int, facts: Mapping[str, Sequence[str]], settings: str) -> str:
    """The README.md of an export. `facts` maps headings to lines; `settings` is TOML."""
    sections = [f"## {heading}\n\n" + "\n".join(f"- {line}" for line in lines) for heading, lines in facts.items()]
    kind = find_architecture(layout.architecture).kind
    return CARD.format(
        name=name,
        task=TASKS[kind],
        code=CODE[kind].replace("NAME", name),
        tag=layout.model_type,
        family=layout.family,
        parameters=parameters,
        facts="\n\n".join(sections),
        settings=settings.strip(),
    )
