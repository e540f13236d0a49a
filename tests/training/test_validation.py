"""Validation while a run trains: its figures against plain loops, and that it changes nothing of the training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import TrainingArguments

from mint.builders.encoder import build_encoder
from mint.builders.language import build_language
from mint.builders.stages import load_stage1, load_stage2
from mint.config import LanguageConfig, Recipe
from mint.data.batches.collate import Stage1Collator, Stage2Collator
from mint.data.batches.items import Item, ListedItems, caption_items, instruction_items
from mint.data.features.prepare import Features, prepare_features, read_examples
from mint.language.tiny import tiny_bert_tokenizer
from mint.training import validation
from mint.training.train import train, used_splits
from mint.training.validation import CANDIDATES, Accuracy, Retrieval, Validation
from mint.types import MintError
from tiny_runs import recipe, train_recipe

EVALUATION: dict[str, Any] = {
    "eval_strategy": "steps",
    "eval_steps": 2,
    "per_device_eval_batch_size": 4,
    "max_steps": 4,
}


@pytest.fixture(scope="module")
def held_out(corpus: Path) -> Path:
    """The corpus with the test clips and a third of the others held out for validation."""
    lines = [json.loads(line) for line in corpus.read_text().splitlines()]
    for line in lines:
        if line["split"] == "test" or line["id"].endswith("2"):
            line["split"] = "validation"
    path = corpus.with_name("held_out.jsonl")
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def evaluations(run: Path) -> list[dict[str, float]]:
    return [line for line in json.loads((run / "history.json").read_text()) if "eval_loss" in line]


def held_items(wanted: Recipe) -> tuple[Sequence[Item], Sequence[Item], Features]:
    """Held-out items, all items, and features."""
    examples = read_examples(wanted.data.manifests)
    make = caption_items if wanted.stage == 1 else instruction_items
    features = prepare_features(build_encoder(wanted.encoder), examples)
    usable = [example for example in examples if example.split in used_splits(wanted)]
    return make([example for example in usable if example.split == "validation"]), make(usable), features


def drawn(items: Sequence[Item], features: Features) -> list[dict[str, Any]]:
    return [
        {"features": features.draw(i.example, 0), "prompt": i.prompt, "answer": i.answers[0], "draw": n}
        for n, i in enumerate(items)
    ]


def test_stage_1(held_out: Path, tmp_path: Path) -> None:
    wanted = recipe(1, held_out, **EVALUATION)
    train_recipe(wanted, tmp_path)
    records = evaluations(tmp_path)
    assert [record["step"] for record in records] == [2, 4]
    items, _, features = held_items(wanted)
    assert len(items) == 6
    collator, model = Stage1Collator(tiny_bert_tokenizer(), 40), load_stage1(tmp_path)
    everything = drawn(items, features)
    parts = [everything[:3], everything[3:]]  # of like size, rather than 4 and 2
    for name in ("loss", "alc", "alm", "atg"):
        mean = sum(model(**collator(part))[name].item() * len(part) for part in parts) / 6
        assert records[-1][f"eval_{name}"] == pytest.approx(mean, rel=1e-5)
    batch = collator(everything)
    clips = model.embed_audio(batch["audio_features"], batch["audio_mask"])
    texts = model.embed_text(batch["text_ids"], batch["text_mask"])
    table = [[max((query @ text).item() for query in clip) for text in texts] for clip in clips]
    for depth in (1, 5):
        hits = sum(sum(other >= row[index] - 1e-5 for other in row) <= depth for index, row in enumerate(table))
        assert records[-1][f"eval_audio_to_text_recall@{depth}"] == pytest.approx(hits / 6)


def test_stage_2(held_out: Path, tmp_path: Path) -> None:
    wanted = recipe(2, held_out, **EVALUATION)
    train_recipe(wanted, tmp_path)
    record = evaluations(tmp_path)[-1]
    items, _, features = held_items(wanted)
    language = build_language(LanguageConfig(family="tiny"))
    model = load_stage2(tmp_path, language)
    collator = Stage2Collator(tiny_bert_tokenizer(), 40, language)
    right = []
    for item in items:
        batch = collator(drawn([item], features))
        if item.task == "pitch":
            names = [name for name in batch if name.startswith(("audio", "instruction"))]
            soft = model.soft_prompt(**{name: batch[name] for name in names})
            sums, _ = language.score(soft, [item.prompt], ["low", "middle", "high"])
            right.append(["low", "middle", "high"][int(sums.argmax())] == item.answers[0])
    assert record["eval_accuracy"] <= 1
    captions = [item for item in items if item.task == "captioning"]
    assert len(captions) == len(right) == 6
    shown = Accuracy(ListedItems(items)).rows(model, collator(drawn(items, features)), items)["right"]
    assert shown[[item.task == "pitch" for item in items]].tolist() == [int(value) for value in right]
    assert record["eval_loss"] > 0


def test_validation_leaves_the_training_as_it_is(held_out: Path, tmp_path: Path) -> None:
    for name, training in (("with", EVALUATION), ("without", {"max_steps": 4})):
        train_recipe(recipe(1, held_out, **training), tmp_path / name)
    with_it, without = (load_file(tmp_path / name / "model.safetensors") for name in ("with", "without"))
    assert all(torch.equal(tensor, without[name]) for name, tensor in with_it.items())


@pytest.mark.parametrize(("metric", "step"), [("audio_to_text_recall@1", 2), ("alc", 4)])
def test_the_best_checkpoint_is_what_a_run_ends_with(
    metric: str, step: int, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.9, 0.2, 0.4])
    monkeypatch.setattr(Retrieval, "figures", lambda *_: {metric: next(values)})
    best = {"load_best_model_at_end": True, "metric_for_best_model": metric, "save_steps": 2}
    train_recipe(recipe(1, held_out, **{**EVALUATION, **best, "max_steps": 6}), tmp_path)
    kept = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert kept == [f"checkpoint-{step}", "checkpoint-6"]
    weights = load_file(tmp_path / "model.safetensors")
    at_best = load_file(tmp_path / f"checkpoint-{step}" / "model.safetensors")
    assert all(torch.equal(tensor, at_best[name]) for name, tensor in weights.items())
    last = load_file(tmp_path / "checkpoint-6" / "model.safetensors")
    assert not torch.equal(last["bridge.queries"], at_best["bridge.queries"])


def test_recall_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    clips, texts = (torch.randn(size, generator=generator) for size in ((20, 3, 4), (20, 4)))
    figures = Retrieval().figures({"clips": clips, "texts": texts})

    def score(clip: int, text: int) -> Tensor:
        return (clips[clip] @ texts[text]).max()

    for depth in (1, 5, 10):
        found = sum(sum(score(i, j) >= score(i, i) for j in range(20)) <= depth for i in range(20))
        assert figures[f"audio_to_text_recall@{depth}"] == pytest.approx(found / 20)
        found = sum(sum(score(i, j) >= score(j, j) for i in range(20)) <= depth for j in range(20))
        assert figures[f"text_to_audio_recall@{depth}"] == pytest.approx(found / 20)


def test_no_more_items_than_the_limit(held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    rows = Retrieval.rows

    def counted(self: Retrieval, model: Any, batch: Any, items: Any) -> dict[str, Tensor]:
        seen.append(len(items))
        return rows(self, model, batch, items)

    monkeypatch.setattr(Retrieval, "rows", counted)
    monkeypatch.setattr(validation, "LIMIT", 5)
    train_recipe(recipe(1, held_out, **{**EVALUATION, "max_steps": 2}), tmp_path)
    assert seen == [2, 3]


@pytest.mark.parametrize("per_rank", [2, 3, 4, 7])
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [5, 6, 9, 13, 31])
def test_each_rank_has_a_part_of_each_batch_of_one_process(
    count: int, ranks: int, per_rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Validation([Item(None, "", "", (str(index),)) for index in range(count)], *[None] * 3)  # type: ignore[arg-type]
    whole = list(held._batches(per_rank * ranks))
    assert [item.answers[0] for batch, _ in whole for _, item in batch] == [str(index) for index in range(count)]
    assert [number for batch, _ in whole for number, _ in batch] == list(range(count))
    assert all(len(batch) == size <= per_rank * ranks for batch, size in whole)
    monkeypatch.setattr("mint.model.gather.world_size", lambda: ranks)
    shares = []
    for rank in range(ranks):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        shares.append(list(held._batches(per_rank)))
    assert {len(share) for share in shares} == {len(whole)}
    for index, (batch, size) in enumerate(whole):
        assert [numbered for share in shares for numbered in share[index][0]] == batch
        assert all(share[index][0] and share[index][1] == size for share in shares)


class Watched(ListedItems):
    """Items that count how many of them were read."""

    read = 0

    def __getitem__(self, index: Any) -> Any:
        self.read += 1
        return super().__getitem__(index)


def test_a_task_with_many_answers_is_read_no_further_than_needed(
    held_out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each item may be a line of a manifest, and of captions there may be millions."""
    example = read_examples([held_out])[0]
    captions = Watched([Item(example, "captioning", "", (f"caption {number}",)) for number in range(5000)])
    few = Watched([Item(example, "few", "", (f"answer {number % 3}",)) for number in range(500)])
    many = Watched([Item(example, "many", "", (f"answer {number}",)) for number in range(CANDIDATES)])
    candidates = Accuracy(captions, few, many).candidates
    assert {task: len(answers) for task, answers in candidates.items()} == {"few": 3, "many": CANDIDATES}
    assert captions.read == CANDIDATES + 1
    again = Watched([Item(example, "many", "", ("one more",)) for _ in range(500)])
    assert set(Accuracy(many, again).candidates) == set()
    assert again.read == 1


def test_mistakes(corpus: Path, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = recipe(1, corpus, **EVALUATION)
    encoder, examples = build_encoder(wanted.encoder), read_examples([corpus])
    with pytest.raises(
        MintError, match=r"eval_strategy is 'steps', but the manifests have no example of the split 'val"
    ):
        train(wanted, tmp_path, examples, prepare_features(encoder, examples), encoder)
    monkeypatch.setattr(validation, "CANDIDATES", 1)
    with pytest.raises(
        MintError, match=r"metric_for_best_model is 'accuracy', but no held-out task has so few answers"
    ):
        train_recipe(recipe(2, held_out, **EVALUATION, metric_for_best_model="accuracy"), tmp_path)
    monkeypatch.setattr(TrainingArguments, "world_size", 7)
    with pytest.raises(MintError, match=r"6 validation items cannot be shared by 7 ranks; hold more out, or use fewer"):
        train_recipe(recipe(1, held_out, **EVALUATION), tmp_path)
