"""Stage 2 equals its plain computation, and what is frozen stays so to the last byte."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional

from mint.model.freeze import count_by_module, fingerprint, freeze
from mint.model.stage2 import Stage2
from tiny_languages import tiny_language
from tiny_models import present, randomise, tiny_batch, tiny_bridge

if TYPE_CHECKING:
    from torch import Tensor

    from mint.language.causal import CausalLanguageModel

PROMPTS = ("This is a sound of", "The genre of this music is", "Generate audio caption:", "")
ANSWERS = ("dog", "drum and bass", "a cat sings in the rain", "rock")


def make_stage(language: CausalLanguageModel, instruction_aware: bool = True) -> Stage2:
    stage = Stage2(bridge=tiny_bridge(), language=language, instruction_aware=instruction_aware)
    randomise(stage.projection, seed=4)
    return stage.eval()


def make_batch(language: CausalLanguageModel) -> dict[str, Tensor]:
    batch = tiny_batch()
    return {
        "audio_features": batch["audio_features"],
        "audio_mask": batch["audio_mask"],
        "instruction_ids": batch["text_ids"],
        "instruction_mask": batch["text_mask"],
        **language.collate(PROMPTS, ANSWERS),
    }


@pytest.mark.parametrize("instruction_aware", [True, False])
def test_loss_equals_one_example_at_a_time(language: CausalLanguageModel, instruction_aware: bool) -> None:
    stage, batch = make_stage(language, instruction_aware), make_batch(language)
    bridge = tiny_bridge().eval()  # the same one, with all that stage 2 drops
    embed, tokens, total, count = language.model.get_input_embeddings(), language.tokenizer, 0.0, 0
    for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        frames = batch["audio_mask"][row].sum()
        words = batch["instruction_mask"][row].sum()
        audio = bridge.project_audio(
            batch["audio_features"][row : row + 1, :frames], torch.ones(1, int(frames), dtype=torch.bool)
        )
        if instruction_aware:
            instruction = batch["instruction_ids"][row : row + 1, :words]
            real = torch.ones_like(instruction, dtype=torch.bool)
            queries = present(bridge.encode_pair(audio, instruction, real).queries)
        else:
            queries = present(bridge.encode_queries(audio).queries)
        before = tokens(prompt)["input_ids"]
        after = [*tokens(" " + answer)["input_ids"], tokens.eos_token_id]
        embedded = torch.cat([stage.projection(queries), embed(torch.tensor([before + after]).long())], dim=1)
        logits = language.model(inputs_embeds=embedded).logits[0, 3 + len(before) - 1 : -1]
        total += functional.cross_entropy(logits, torch.tensor(after), reduction="sum").item()
        count += len(after)
    assert stage(**batch)["loss"].item() == pytest.approx(total / count, abs=1e-5)


@pytest.mark.parametrize("soft_prompts", [None, 2])
def test_which_queries_make_a_soft_prompt(language: CausalLanguageModel, soft_prompts: int | None) -> None:
    """Each query makes its own, or all of them together make each."""
    stage = Stage2(bridge=tiny_bridge(), language=language, soft_prompts=soft_prompts)
    randomise(stage.projection, seed=4)
    outputs = torch.randn(2, 3, stage.bridge.width, requires_grad=True)  # of three queries
    projected = stage.projection(stage.projection_inputs(outputs)).view(2, -1, language.width)
    assert projected.shape[1] == (soft_prompts or 3)
    for index in range(projected.shape[1]):
        (gradient,) = torch.autograd.grad(projected[0, index].sum(), outputs, retain_graph=True)
        reached = gradient.abs().sum(dim=2) > 0  # [B, Q]
        assert not reached[1].any()
        assert reached[0].tolist() == ([True] * 3 if soft_prompts else [query == index for query in range(3)])


def test_instruction_changes_the_soft_prompt_only_where_bridge_net_reads_it(language: CausalLanguageModel) -> None:
    batch = make_batch(language)
    audio = batch["audio_features"], batch["audio_mask"]
    other = batch["instruction_ids"].clone()
    other[:, 1] += 1
    for aware in (True, False):
        stage = make_stage(language, aware)
        prompts = [
            stage.soft_prompt(*audio, ids, batch["instruction_mask"]) for ids in (batch["instruction_ids"], other)
        ]
        assert prompts[0].shape == (4, 3, language.width)
        changed = (prompts[0] - prompts[1]).abs().amax(dim=(1, 2)) > 1e-4
        assert changed.all() if aware else not changed.any()


@pytest.mark.parametrize("instruction_aware", [True, False])
def test_gradients_reach_all_that_is_trained_and_nothing_else(
    language: CausalLanguageModel, instruction_aware: bool
) -> None:
    """No trained parameter is without gradient, as data parallelism wants it."""
    stage = make_stage(language, instruction_aware).train()
    stage(**make_batch(language))["loss"].backward()
    trained = dict(stage.named_parameters())
    assert {"bridge.queries", "bridge.audio_norm.weight", "projection.weight", "projection.bias"} <= set(trained)
    for name, parameter in stage.named_parameters():
        assert parameter.requires_grad, name
        assert parameter.grad is not None, name
        # A key's bias shifts all scores of a row alike, so that its gradient is zero but for rounding.
        assert name.endswith("key.bias") or present(parameter.grad).abs().max() > 0, name
    text_side = [name for name in trained if "text_feed_forward" in name or "word_emb" in name or "position" in name]
    assert bool(text_side) == instruction_aware
    assert all(parameter.grad is None for parameter in language.model.parameters())


def test_frozen_language_model_is_the_same_to_the_last_byte_after_a_step() -> None:
    language = tiny_language()
    stage = make_stage(language)
    before = fingerprint(language.model), fingerprint(stage)
    optimiser = torch.optim.AdamW(stage.parameters(), lr=0.1, weight_decay=0.1)
    stage.train()
    assert stage.bridge.training
    assert not any(module.training for module in language.model.modules())
    stage(**make_batch(language))["loss"].backward()
    optimiser.step()
    assert fingerprint(language.model) == before[0]
    assert fingerprint(stage) != before[1]


def test_checkpoint_holds_nothing_of_the_language_model(language: CausalLanguageModel) -> None:
    stage = make_stage(language)
    assert {name.split(".")[0] for name in stage.state_dict()} == {"bridge", "projection"}
    assert stage.state_dict().keys() == dict(stage.named_parameters()).keys()
    held = {parameter.data_ptr() for parameter in language.model.parameters()}
    assert not held & {tensor.data_ptr() for tensor in stage.state_dict().values()}
    assert stage.language is language


def test_freezing_pins_eval_mode_and_turns_gradients_off() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
    assert freeze(module) is module
    assert module.train() is module
    torch.nn.ModuleList([module]).train()
    assert not module.training
    assert not module[1].training
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_parameters_are_counted_by_child_and_by_own_parameter() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(4))
            self.frozen = freeze(torch.nn.Linear(2, 3))
            self.mixed = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
            self.mixed[0].requires_grad_(False)

    assert sorted(count_by_module(Model())) == [("frozen", 0, 9), ("mixed", 3, 6), ("scale", 4, 0)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_fingerprint_sees_every_byte(dtype: torch.dtype) -> None:
    module = torch.nn.Module()
    module.layer = torch.nn.Linear(3, 2).to(dtype)
    module.register_buffer("saved", torch.ones(2))
    module.register_buffer("unsaved", torch.tensor(1), persistent=False)
    prints = {fingerprint(module), fingerprint(copy.deepcopy(module))}
    assert len(prints) == 1
    with torch.no_grad():
        module.layer.weight[1, 2] += 1
    prints.add(fingerprint(module))
    module.get_buffer("saved")[1] = 2
    prints.add(fingerprint(module))
    module.get_buffer("unsaved").fill_(2)
    prints.add(fingerprint(module))
    assert len(prints) == 4
