"""The start of stage 2: where the projection stands before the first step, and how fast what then moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from mint.builders.encoder import build_encoder
from mint.config import Recipe
from mint.data.batches.items import Item, ListedItems
from mint.data.features.prepare import prepare_features, read_examples
from mint.model.projection import WhitenedLinear, align_projection
from mint.run_folder import load_weights
from mint.training.align_start import align_start, chosen_items, example_turn, mean_embedding
from mint.training.train import Prepared, prepare, train
from mint.types import CAPTION_PROMPT, Example
from tiny_runs import recipe


def prepared(wanted: Recipe, corpus: Path, output: Path) -> Prepared:
    examples = [example for example in read_examples([corpus]) if example.split == "train"]
    encoder = build_encoder(wanted.encoder)
    features = prepare_features(encoder, examples, 30.0)
    torch.manual_seed(0)
    return prepare(wanted, output, examples, [], features.draw, encoder)


def test_mean_embedding_leaves_the_end_out() -> None:
    embedding = torch.arange(20.0).reshape(10, 2)
    labels = torch.tensor([[-100, 3, 5, 9], [-100, -100, 4, 9], [9, -100, -100, -100]])
    expected = torch.stack([(embedding[3] + embedding[5]) / 2, embedding[4], embedding[9]])
    assert mean_embedding(embedding, labels).equal(expected)


def test_a_soft_prompt_reads_like_an_earlier_turn() -> None:
    """The end of the prompt, twice the answer, and its end; a short prompt comes after ends of earlier turns."""
    embedding = torch.arange(20.0).reshape(10, 2)
    prompts = torch.tensor([[1, 2, 3, 4], [0, 0, 5, 6]])
    masks = torch.tensor([[True] * 4, [False, False, True, True]])
    labels = torch.tensor([[3, 5, 9], [4, 9, -100]])
    turns = example_turn(embedding, prompts, masks, labels, count=6)
    first = [embedding[2], embedding[3], embedding[4], embedding[4], embedding[4], embedding[9]]
    assert turns[0].equal(torch.stack(first))  # the mean of tokens 3 and 5 is token 4
    second = [embedding[9], embedding[5], embedding[6], embedding[4], embedding[4], embedding[9]]
    assert turns[1].equal(torch.stack(second))
    assert example_turn(embedding, prompts, masks, labels, count=3).equal(embedding[4].expand(2, 3, 2))


def test_short_answers_where_there_are_such() -> None:
    example = Example("a", Path("a.wav"), "task", "train", "corpus")
    asked, told = Item(example, "t", "What is it?", ("x",)), Item(example, "captioning", CAPTION_PROMPT, ("y",))
    assert chosen_items(ListedItems([told, asked, told, asked])) == [1, 3]
    assert chosen_items(ListedItems([told, told])) == [0, 1]


def test_only_the_projection_changes_and_as_the_closed_form_says(corpus: Path, tmp_path: Path) -> None:
    run = prepared(replace(recipe(2, corpus), aligned_start=True), corpus, tmp_path)
    before = {name: weight.clone() for name, weight in run.model.state_dict().items()}
    align_start(run.model, run.trainer.dataset, run.trainer.data_collator)
    after = run.model.state_dict()
    changed = {name for name in after if not after[name].equal(before[name])}
    assert changed == {f"projection.{name}" for name in ("weight", "bias", "centre", "whitening")}
    indices = chosen_items(run.trainer.dataset.items)
    batch = run.trainer.data_collator([run.trainer.dataset[index, 0] for index in indices])
    inputs = [batch[name] for name in ("audio_features", "audio_mask", "instruction_ids", "instruction_mask")]
    run.model.eval()
    with torch.no_grad():
        queries = run.model.extract(*inputs)
    expected = WhitenedLinear(after["projection.weight"].shape[1], after["projection.weight"].shape[0])
    assert run.language is not None
    turns = example_turn(
        run.language.embedding.weight, batch["prompt_ids"], batch["prompt_mask"], batch["labels"], queries.shape[1]
    )
    align_projection(expected, queries, turns)
    torch.testing.assert_close(after["projection.weight"], expected.weight.data, atol=1e-4, rtol=1e-4)


def test_a_whitened_layer_is_one_layer_on_white_inputs() -> None:
    torch.manual_seed(0)
    layer = WhitenedLinear(6, 3)
    inputs = torch.randn(500, 6) @ torch.randn(6, 6) + 5
    torch.testing.assert_close(layer(inputs), nn.functional.linear(inputs, layer.weight, layer.bias))
    layer.whiten(inputs)
    white = layer.whitened(inputs)
    torch.testing.assert_close(white.mean(dim=0), torch.zeros(6), atol=1e-4, rtol=0)
    variances = torch.linalg.eigvalsh(inputs.T.cov(correction=0))
    expected = variances / (variances + 0.01 * variances.mean())
    torch.testing.assert_close(torch.linalg.eigvalsh(white.T.cov(correction=0)), expected, atol=1e-3, rtol=0)
    weight = layer.weight @ layer.whitening.T
    folded = nn.functional.linear(inputs, weight, layer.bias - weight @ layer.centre)
    torch.testing.assert_close(layer(inputs), folded, atol=1e-4, rtol=1e-4)


def test_directions_without_variance_stay_small() -> None:
    torch.manual_seed(0)
    layer = WhitenedLinear(4, 2)
    inputs = torch.randn(100, 4) * torch.tensor([1.0, 1.0, 1e-6, 0.0])
    layer.whiten(inputs)
    assert layer.whitened(inputs)[:, 2:].abs().max() < 1e-4
    assert layer.whitening.isfinite().all()


def test_training_begins_there(corpus: Path, tmp_path: Path) -> None:
    still = replace(recipe(2, corpus, max_steps=1, learning_rate=0.0), aligned_start=True)
    examples = read_examples([corpus])
    encoder = build_encoder(still.encoder)
    train(still, tmp_path / "run", examples, prepare_features(encoder, examples, 30.0), encoder)
    trained = load_weights(tmp_path / "run")
    run = prepared(still, corpus, tmp_path / "other")
    run.model.load_state_dict(trained)
    align_start(run.model, run.trainer.dataset, run.trainer.data_collator)
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
