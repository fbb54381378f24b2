"""A small subject in good health: a GPT-2 of 30,000 parameters on sentences of few words."""

from __future__ import annotations

from typing import Any

import pytest
from subjects import FromRecipe, small_config

from glassgpt.data.corpora import text_corpus
from glassgpt.data.dataset import Dataset
from glassgpt.data.dataset_cache import build_dataset
from glassgpt.doctor.subject import Subject, build_subject
from glassgpt.runtime.device import build_runtime


@pytest.fixture(scope="session")
def dataset(text: str) -> Dataset:
    config = small_config()
    return build_dataset(config.data, config.tokenizer, corpus=text_corpus(text))


@pytest.fixture(scope="session")
def from_recipe(dataset: Dataset) -> FromRecipe:
    """`from_recipe(optimizer__lr=0.1)`: a subject in good health but for what is changed."""

    def from_recipe(precision: str = "float32", **changes: Any) -> Subject:
        config = small_config(**{"model__vocab_size": dataset.tokenizer.vocab_size} | changes)
        return build_subject(config, dataset, build_runtime("cpu", precision))

    return from_recipe


@pytest.fixture
def healthy(from_recipe: FromRecipe) -> Subject:
    return from_recipe()
