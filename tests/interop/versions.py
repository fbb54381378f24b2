"""What transformers 4 and 5 call differently. `make test` has the newest, `make parity` has 4.56."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

TRANSFORMERS_4 = pytest.importorskip("transformers").__version__.startswith("4.")
# The name of a converter's argument.
EXTRA_SPECIAL_TOKENS = "additional_special_tokens" if TRANSFORMERS_4 else "extra_special_tokens"


def rope_fields(rope: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields of a config for these `rope_parameters`; None: the library's default."""
    if not TRANSFORMERS_4:
        return {"rope_parameters": rope}
    if rope is None:
        return {}
    scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
    return {"rope_theta": rope["rope_theta"], "rope_scaling": None if rope["rope_type"] == "default" else scaling}


def rope_parameters(config: Any) -> dict[str, Any]:
    """What a config of the library says of rotary positions."""
    return {"rope_theta": config.rope_theta, **config.rope_scaling} if TRANSFORMERS_4 else config.rope_parameters
