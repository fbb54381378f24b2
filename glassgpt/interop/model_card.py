"""The model card of an export: the model, its training data, its validation loss, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glassgpt.interop.layout import Layout

CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
tags:
- glassgpt
- {tag}
---

# {name}

A {family} of {parameters:,} parameters, written by GlassGPT.

```python
from transformers import pipeline

write = pipeline("text-generation", "{name}")
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
    return CARD.format(
        name=name,
        tag=layout.model_type,
        family=layout.family,
        parameters=parameters,
        facts="\n\n".join(sections),
        settings=settings.strip(),
    )
