"""Options of the language model, from the recipe through training to the use of the run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mint import Mint
from mint.cli import main
from mint.config import LanguageConfig, Recipe, load_recipe
from mint.language.causal import CausalLanguageModel
from tiny_runs import recipe, train_recipe

if TYPE_CHECKING:
    from pathlib import Path


def with_language(corpus: Path, **options: Any) -> Recipe:
    """A stage 2 with options of its language model, long enough to be learnt from."""
    made = recipe(2, corpus, max_steps=20, learning_rate=1e-2)
    return replace(made, language=LanguageConfig(family="tiny", **options))


def test_chat_from_recipe_to_use(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, labels = corpus.parent / "low0.wav", ["low", "middle", "high"]
    for chat in (True, False):
        train_recipe(with_language(corpus, chat_template=chat), tmp_path / str(chat))
    run = tmp_path / "True"
    saved = load_recipe(run / "recipe.yaml").language
    assert saved is not None
    assert saved.chat_template
    used = Mint.from_pretrained(run)
    scores = used.classify(clip, labels, prompt="The pitch is")
    language: Any = used._load_stage2().model.language
    assert isinstance(language, CausalLanguageModel)
    asked = [{"role": "user", "content": "The pitch is"}]
    theirs = language.tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
    assert [*language.opening, *language.prompt_tokens("The pitch is")] == theirs
    assert scores != Mint.from_pretrained(tmp_path / "False").classify(clip, labels, prompt="The pitch is")
    command = ["classify", str(run), str(clip), "--labels", ",".join(labels), "--prompt", "The pitch is", "--json"]
    assert main(command) == 0
    assert f"{scores['low']:.3f}"[:-1] in capsys.readouterr().out
