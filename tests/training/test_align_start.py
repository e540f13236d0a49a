"""The start of stage 2: where the projection stands before the first step, and how fast what then moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from mint.builders.encoder import build_encoder
from mint.config import Recipe
from mint.data.batches.sampler import MixtureSampler
from mint.data.features.prepare import prepare_features, read_examples
from mint.model.projection import RIDGE
from mint.run_folder import load_weights
from mint.training.align_start import EXAMPLES, align_start, answer_embeddings, chosen_items
from mint.training.train import Prepared, prepare, train
from tiny_runs import recipe


def prepared(wanted: Recipe, corpus: Path, output: Path) -> Prepared:
    examples = [example for example in read_examples([corpus]) if example.split == "train"]
    encoder = build_encoder(wanted.encoder)
    features = prepare_features(encoder, examples, 30.0)
    torch.manual_seed(0)
    return prepare(wanted, output, examples, [], features.draw, encoder)


def test_soft_prompts_are_the_first_tokens_of_the_answer_and_then_its_mean() -> None:
    embedding = torch.arange(20.0).reshape(10, 2)
    labels = torch.tensor([[-100, 3, 5, 9], [-100, -100, 4, 9], [9, -100, -100, -100]])
    mean = (embedding[3] + embedding[5]) / 2
    assert answer_embeddings(embedding, labels, 1)[:, 0].equal(torch.stack([mean, embedding[4], embedding[9]]))
    first, second, third = answer_embeddings(embedding, labels, 3)
    assert first.equal(torch.stack([embedding[3], embedding[5], mean]))
    assert second.equal(embedding[4].expand(3, 2))
    assert third.equal(embedding[9].expand(3, 2))
    assert answer_embeddings(embedding, torch.tensor([[1, 2, 3, 9]]), 2)[0].equal(embedding[1:3])


def test_tasks_weigh_what_the_mixture_says() -> None:
    tasks = ["few"] * 10 + ["many"] * 30_000 + ["none"] * 5
    sampler = MixtureSampler(tasks, {"few": 1, "many": 3, "none": 0}, length=1000)
    indices, weights = chosen_items(sampler)
    assert indices[:10] == list(range(10))
    assert len(indices) == 10 + round(EXAMPLES * 0.75)
    assert len(set(indices)) == len(indices)
    assert max(indices) == 30_009
    assert sum(weights[:10]) == pytest.approx(0.25)
    assert sum(weights) == pytest.approx(1)


@pytest.mark.parametrize("soft_prompts", [None, 2])
def test_only_the_projection_changes_and_as_the_closed_form_says(
    corpus: Path, tmp_path: Path, soft_prompts: int | None
) -> None:
    run = prepared(replace(recipe(2, corpus), aligned_start=True, soft_prompts=soft_prompts), corpus, tmp_path)
    before = {name: weight.clone() for name, weight in run.model.state_dict().items()}
    align_start(run.model, run.trainer.dataset, run.trainer.mixture_sampler, run.trainer.data_collator)
    after = run.model.state_dict()
    changed = {name for name in after if not after[name].equal(before[name])}
    assert changed == {f"projection.{name}" for name in ("weight", "bias", "centre", "whitening")}

    indices, weights = chosen_items(run.trainer.mixture_sampler)
    batch = run.trainer.data_collator([run.trainer.dataset[index, 0] for index in indices])
    inputs = [batch[name] for name in ("audio_features", "audio_mask", "instruction_ids", "instruction_mask")]
    run.model.eval()
    with torch.no_grad():
        queries = run.model.extract(*inputs)  # [B, Q, D]
    assert run.language is not None
    count = soft_prompts or 1
    targets = answer_embeddings(run.language.embedding.weight, batch["labels"], count).flatten(1)

    rows = queries.flatten(1) if soft_prompts else queries.flatten(0, 1)
    times = len(rows) // len(targets)
    expected = Ridge(alpha=ridge_of(rows, weights, times))
    expected.fit(rows, targets.repeat_interleave(times, 0), np.repeat(weights, times))
    soft = run.model.soft_prompt(*inputs).detach().reshape(len(rows), -1)
    torch.testing.assert_close(soft, torch.tensor(expected.predict(rows)), atol=1e-3, rtol=1e-3, check_dtype=False)


def ridge_of(rows: torch.Tensor, weights: list[float], times: int) -> float:
    """The strength of scikit-learn's ridge, which is not divided by the number of examples."""
    repeated = np.repeat(weights, times)
    return float(RIDGE * np.cov(rows.T, aweights=repeated, bias=True).diagonal().mean() * repeated.sum())


def test_training_begins_there(corpus: Path, tmp_path: Path) -> None:
    still = replace(recipe(2, corpus, max_steps=1, learning_rate=0.0), aligned_start=True)
    examples = read_examples([corpus])
    encoder = build_encoder(still.encoder)
    train(still, tmp_path / "run", examples, prepare_features(encoder, examples, 30.0), encoder)
    trained = load_weights(tmp_path / "run")
    run = prepared(still, corpus, tmp_path / "other")
    run.model.load_state_dict(trained)
    align_start(run.model, run.trainer.dataset, run.trainer.mixture_sampler, run.trainer.data_collator)
    torch.testing.assert_close(run.model.projection.weight.data, trained["projection.weight"], atol=1e-4, rtol=1e-4)


def test_bridge_net_moves_at_its_own_rate(corpus: Path, tmp_path: Path) -> None:
    run = prepared(replace(recipe(2, corpus, learning_rate=0.5), bridge_lr_share=0.1), corpus, tmp_path)
    optimizer = run.trainer.create_optimizer()
    rates = {id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]}
    decays = {id(weight): group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    decayed = run.trainer.get_decay_parameter_names(run.model)
    for name, weight in run.model.named_parameters():
        if weight.requires_grad:
            assert rates[id(weight)] == (0.05 if name.startswith("bridge.") else 0.5), name
            assert decays[id(weight)] == (run.trainer.args.weight_decay if name in decayed else 0.0), name
