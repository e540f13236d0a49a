"""Fixtures that several folders share; the models behind them are in `tiny_models.py` and `tiny_languages.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tiny_languages import tiny_language
from tiny_models import tiny_bridge

if TYPE_CHECKING:
    from mint.language.causal import CausalLanguageModel
    from mint.model.bridge_net import BridgeNet


@pytest.fixture
def bridge() -> BridgeNet:
    """A tiny Bridge-Net."""
    return tiny_bridge()


@pytest.fixture(scope="session")
def language() -> CausalLanguageModel:
    """A tiny frozen language model."""
    return tiny_language()
