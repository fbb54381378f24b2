"""A small patient in good health: a GPT-2 of 30,000 parameters on sentences of few words."""

from __future__ import annotations

import random
from typing import Any

import pytest
from patients import Admit, small_config

from glassgpt.data.corpora import text_corpus
from glassgpt.data.prepare import prepare
from glassgpt.data.prepared import Prepared
from glassgpt.doctor.patient import Patient, patient_of
from glassgpt.runtime import build_runtime


@pytest.fixture(scope="session")
def text() -> str:
    draw = random.Random(0)
    words = ["the", "cat", "sat", "on", "a", "mat", "while", "many", "dogs", "ran", "home", "to", "eat", "and", "sleep"]
    return "".join(" ".join(draw.choices(words, k=6)).capitalize() + ".\n" for _ in range(500))


@pytest.fixture(scope="session")
def prepared(text: str) -> Prepared:
    config = small_config()
    return prepare(config.data, config.tokenizer, corpus=text_corpus(text))


@pytest.fixture(scope="session")
def admit(prepared: Prepared) -> Admit:
    """`admit(optimizer__lr=0.1)`: a patient in good health but for what is changed."""

    def admit(precision: str = "float32", **changes: Any) -> Patient:
        config = small_config(**{"model__vocab_size": prepared.tokenizer.vocab_size} | changes)
        return patient_of(config, prepared, build_runtime("cpu", precision))

    return admit


@pytest.fixture
def healthy(admit: Admit) -> Patient:
    return admit()
