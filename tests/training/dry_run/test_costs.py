"""What `--dry-run` says a step costs: of the recipe as it would be run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mint.builders.bridge import build_tokenizer
from mint.builders.encoder import build_encoder
from mint.builders.language import build_language
from mint.builders.stages import build_stage2
from mint.config import LanguageConfig, ObjectivesConfig, Recipe
from mint.data.features.prepare import read_examples
from mint.language.shard import find_blocks
from mint.training.dry_run.costs import Costs, estimate_costs
from mint.training.dry_run.estimate import step_seconds
from mint.training.dry_run.plan import Plan, plan
from tiny_languages import tiny_language
from tiny_runs import recipe


def planned(wanted: Recipe) -> Plan:
    return plan(wanted, read_examples(wanted.data.manifests), build_encoder(wanted.encoder))


def costs_of(wanted: Recipe) -> Costs:
    found = planned(wanted).costs
    assert found is not None
    return found


@pytest.mark.parametrize("stage", [1, 2])
def test_activation_checkpointing_costs_a_pass_of_bridge_net_and_saves_memory(stage: int, corpus: Path) -> None:
    plain, saving = costs_of(recipe(stage, corpus)), costs_of(recipe(stage, corpus, activation_checkpointing=True))
    assert saving.work.forward == plain.work.forward
    assert plain.work.backward < saving.work.backward < plain.work.backward + plain.work.forward
    kept = "kept for the backward pass"
    assert saving.memory[kept] < plain.memory[kept]
    assert saving.memory["in all"] - saving.memory[kept] == plain.memory["in all"] - plain.memory[kept]


def test_accumulation(corpus: Path) -> None:
    """Work and memory are those of a micro-batch, the seconds those of the step."""
    plain, parts = costs_of(recipe(2, corpus)), costs_of(recipe(2, corpus, gradient_accumulation_steps=4))
    assert (plain.parts, parts.parts) == (1, 4)
    assert (parts.work, parts.memory) == (plain.work, plain.memory)
    assert parts.seconds == pytest.approx({device: 4 * seconds for device, seconds in plain.seconds.items()})
    assert plain.seconds["A100"] == step_seconds(plain.work, "A100")


def test_accumulated_matching_alone_has_its_first_pass(corpus: Path) -> None:
    wanted = recipe(1, corpus, gradient_accumulation_steps=3)
    wanted = replace(wanted, objectives=ObjectivesConfig(alc=False, atg=False))
    plain, joined = costs_of(wanted), costs_of(replace(wanted, accumulate_negatives=True))
    assert joined.work.forward > 1.2 * plain.work.forward
    shapes = joined.shapes
    held = joined.memory["features of the whole batch, twice"]
    assert held == 2 * 3 * shapes.batch * shapes.frames * 16 * 4
    assert plain.memory["features of the whole batch, twice"] == 0


def test_what_is_spread_over_ranks_is_divided_by_them(corpus: Path) -> None:
    wanted = replace(recipe(2, corpus), language=LanguageConfig(family="tiny", shard=True))
    assert wanted.language is not None
    encoder, tokenizer, language = (
        build_encoder(wanted.encoder),
        build_tokenizer(wanted.bridge),
        build_language(wanted.language),
    )
    model: Any = language
    stage, _ = build_stage2(wanted, encoder.width, len(tokenizer), language)
    frozen = sum(parameter.numel() for parameter in model.model.parameters())
    blocks = [sum(parameter.numel() for parameter in block.parameters()) for block in find_blocks(model.model)]

    def memory(ranks: int, fsdp: bool) -> dict[str, int]:
        arguments = SimpleNamespace(train_batch_size=4, gradient_accumulation_steps=1, bf16=False, fsdp=fsdp)
        return estimate_costs(wanted, stage, language, encoder, tokenizer, arguments, 1000, frozen, ranks).memory

    alone, four, spread = memory(1, False), memory(4, False), memory(4, True)
    assert alone["frozen weights"] == 4 * frozen
    assert four["frozen weights"] == 4 * (frozen - sum(blocks) + sum(blocks) // 4 + max(blocks))
    names = ("trained weights, gradients and moments", "gathered weights and gradients")
    assert [four[name] for name in names] == [alone[name] for name in names] == [16000, 0]
    assert [spread[name] for name in names] == [4000, 8000]


def test_a_family_whose_cost_is_not_known_is_named(corpus: Path, tmp_path: Path) -> None:
    language = tiny_language("gpt2")
    for part in (language.model, language.tokenizer):
        part.save_pretrained(tmp_path)
    wanted = replace(recipe(2, corpus), language=LanguageConfig(family="causal", weights=str(tmp_path)))
    found = planned(wanted)
    assert found.costs is None
    assert found.notes == ["no costs: the cost of a 'gpt2' language model is not known"]
