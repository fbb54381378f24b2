"""Logits to text. The defaults of `glassgpt sample`, `Run.generate` and `Run.stream` are here, so that they agree.

Torch is not imported: `glassgpt sample --help` reads them.
"""

TEMPERATURE = 0.8
MAX_NEW_TOKENS = 500
