"""What do the query outputs of stage 1 hold, how does a language model read soft prompts, and where does stage 2 start?

Three tables on the validation clips of a finished quickstart, without any training:

- readout: ridge regression of the answer's mean embedding on the query outputs, and the label that is nearest;
- reading: labels ranked after soft prompts that are exactly right, in several sequences;
- start: labels ranked after the soft prompts that a fitted layer gives, before the first step.

Of the last two each cell is `sum / sum less its mean over the clips`, percent right (of ensembles, PR-AUC). With
`--manifest` a table of one's own with one label a clip is a task more.

    python benchmarks/soft_prompts.py runs/quickstart
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.nn import functional

from mint.builders.encoder import build_encoder
from mint.builders.language import build_language
from mint.data.features.prepare import Features, prepare_features, read_examples
from mint.data.manifests.index import of_splits
from mint.evaluation.metrics.classification import among_labels
from mint.model.evaluating import evaluating
from mint.model.projection import Moments, WhitenedLinear
from mint.predict import finish_scores
from mint.run_folder import load_run_recipe
from mint.training.align_start import answer_embeddings, chosen_items
from mint.training.train import Prepared, prepare
from mint.types import Example

MOST_CLIPS = 80
"""Clips of a task, at even distances among those of its validation split."""
BATCH = 32
SOFT_PROMPTS = 8
"""Soft prompts that are exactly right, where they are all the same."""


@dataclass(frozen=True)
class Task:
    """Validation clips of one task."""

    name: str
    prompt: str
    labels: list[str]
    truth: Any
    """[N, C] bool."""
    queries: Tensor
    """[N, Q, D]."""

    def right(self, scores: Tensor) -> float:
        """Percent of the clips whose best label is right; of several labels a clip, PR-AUC in percent."""
        values = scores.double().numpy()
        if self.truth.sum(axis=1).max() == 1:
            return 100 * float(self.truth[np.arange(len(values)), values.argmax(axis=1)].mean())
        areas = [
            average_precision_score(self.truth[:, index], among_labels(values)[:, index])
            for index in np.flatnonzero(self.truth.any(axis=0))
        ]
        return 100 * float(np.mean(areas))


@dataclass(frozen=True)
class Learnt:
    """The training items that the start is fitted to."""

    queries: Tensor
    """[N, Q, D]."""
    labels: list[Tensor]
    """The tokens of the answers, [1, L] each."""
    weights: Tensor
    """[N]."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("run", type=Path, help="the folder of a finished quickstart")
    options.add_argument("--manifest", type=Path, help="a manifest of clips with one label each, a task more")
    chosen = options.parse_args()

    recipe = replace(load_run_recipe(chosen.run / "stage2"), start=str(chosen.run / "stage1"))
    encoder = build_encoder(recipe.encoder, "cpu")
    examples = [*read_examples(recipe.data.manifests), *(read_examples([chosen.manifest]) if chosen.manifest else ())]
    features = prepare_features(encoder, examples, recipe.data.max_seconds)
    with TemporaryDirectory() as folder:
        stage2 = prepare(recipe, Path(folder), of_splits(examples, ("train",)), [], features.draw, encoder)
    tasks = list(tasks_of(stage2, features, examples, chosen.manifest))
    learnt = learnt_of(stage2)

    assert recipe.language is not None
    plain = build_language(replace(recipe.language, earlier_turn=False), "cpu")
    turn = build_language(replace(recipe.language, earlier_turn=True), "cpu")
    print_table("readout", tasks, readouts(learnt, turn))
    print_table("reading", tasks, readings(plain, turn))
    print_table("start", tasks, starts(learnt, turn))


def tasks_of(
    stage2: Prepared, features: Features, examples: Sequence[Example], manifest: Path | None
) -> Iterable[Task]:
    """The tasks with their validation clips; a manifest of one's own with all of its clips."""
    own = {example.id for example in read_examples([manifest])} if manifest else set()
    for corpus in dict.fromkeys(
        example.corpus for example in examples if example.prompt and example.corpus != "chords"
    ):
        clips = [example for example in examples if example.corpus == corpus and example.prompt]
        held = [clip for clip in clips if clip.split == "validation" or clip.id in own]
        evenly = np.linspace(0, len(held) - 1, min(len(held), MOST_CLIPS)).astype(int)
        held = [held[index] for index in evenly]
        # Drawn sounds have answers, and labels only in the test split.
        known = [clip.labels or (clip.answer or "",) for clip in held]
        labels = sorted({label for clip in known for label in clip})
        truth = np.array([[label in clip for label in labels] for clip in known])
        prompt = held[0].prompt or ""
        rows = [{"features": features.draw(clip, 0), "prompt": prompt, "answer": "x", "draw": 0} for clip in held]
        yield Task(corpus, prompt, labels, truth, query_outputs(stage2, rows)[0])


def learnt_of(stage2: Prepared) -> Learnt:
    """The items that `aligned_start` takes, without captions."""
    trainer = stage2.trainer
    indices, weights = chosen_items(trainer.mixture_sampler)
    asking = set(trainer.dataset.items.asking())
    kept = [(index, weight) for index, weight in zip(indices, weights, strict=True) if index in asking]
    queries, labels = query_outputs(stage2, [trainer.dataset[index, 0] for index, _ in kept])
    return Learnt(queries, labels, torch.tensor([weight for _, weight in kept]))


def query_outputs(stage2: Prepared, rows: Sequence[Any]) -> tuple[Tensor, list[Tensor]]:
    """The query outputs [N, Q, D] of rows as a dataset gives them, and the tokens of their answers."""
    queries, labels = [], []
    with evaluating(stage2.model), torch.no_grad():
        for first in range(0, len(rows), BATCH):
            batch = stage2.trainer.data_collator(list(rows[first : first + BATCH]))
            answers, _, _ = (batch.pop(name) for name in ("labels", "prompt_ids", "prompt_mask"))
            queries.append(stage2.model.extract(**batch))
            labels += answers.split(1)
    return torch.cat(queries), labels


def tokens_of(language: Any, label: str) -> Tensor:
    """The tokens of a label as the answer, with its end, [1, L]."""
    return torch.tensor(language.answer_tokens(label))[None]


def fit(inputs: Tensor, targets: Tensor, weights: Tensor) -> Callable[[Tensor], Tensor]:
    """The ridge regression of `aligned_start`, from [N, D] to [N, W]."""
    moments = Moments(inputs.shape[1], targets.shape[1])
    moments.add(inputs, targets, weights)
    layer = WhitenedLinear(inputs.shape[1], targets.shape[1])
    layer.align(moments)
    return lambda rows: layer(rows).detach()


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "one query": lambda queries: queries[:, -2],
    "the mean of the queries": lambda queries: queries.mean(dim=1),
    "all queries together": lambda queries: queries.flatten(1),
}
Measured = Callable[[Task], str]


def readouts(learnt: Learnt, language: Any) -> Iterable[tuple[str, Measured]]:
    """The rows of the first table."""
    means = partial(answer_embeddings, language.embedding.weight, count=1)
    targets = torch.cat([means(labels)[:, 0] for labels in learnt.labels])  # [N, W]
    for name, view in VIEWS.items():
        layer = fit(view(learnt.queries), targets, learnt.weights)

        def measure(task: Task, view: Any = view, layer: Any = layer) -> str:
            said = layer(view(task.queries))
            labels = torch.cat([means(tokens_of(language, label))[:, 0] for label in task.labels])
            said, labels = said - said.mean(dim=0), labels - labels.mean(dim=0)
            return f"{task.right(functional.normalize(said, dim=1) @ functional.normalize(labels, dim=1).T):.0f}"

        yield name, measure


def readings(plain: Any, turn: Any) -> Iterable[tuple[str, Measured]]:
    """The rows of the second table: soft prompts of the first right label of each clip."""
    embedding = plain.embedding.weight

    def right(task: Task, count: int) -> Tensor:
        first = [task.labels[int(np.flatnonzero(row)[0])] for row in task.truth]
        return torch.cat([answer_embeddings(embedding, tokens_of(plain, label), count) for label in first])

    def same(task: Task) -> Tensor:
        return right(task, 1).expand(-1, SOFT_PROMPTS, -1)

    def ended(task: Task) -> Tensor:
        end = embedding[plain.end].expand(len(task.truth), 1, -1)
        return torch.cat([same(task), end], dim=1)

    yield "answer, instruction", lambda task: ranked(plain, task, same(task))
    yield "answer, end, instruction", lambda task: ranked(plain, task, ended(task))
    yield "instruction, answer, end, instruction", lambda task: ranked(turn, task, same(task))
    for count in (4, 6):

        def in_order(task: Task, count: int = count) -> str:
            return ranked(turn, task, right(task, count))

        yield f"instruction, the answer's first {count} tokens, end, instruction", in_order


def starts(learnt: Learnt, turn: Any) -> Iterable[tuple[str, Measured]]:
    """The rows of the third table; all of them stand as an earlier turn."""
    embedding = turn.embedding.weight
    all_queries = VIEWS["all queries together"]

    def targets(count: int) -> Tensor:
        return torch.cat([answer_embeddings(embedding, labels, count) for labels in learnt.labels]).flatten(1)

    num_queries = learnt.queries.shape[1]
    repeated = targets(1).repeat_interleave(num_queries, 0), learnt.weights.repeat_interleave(num_queries)
    shared = fit(learnt.queries.flatten(0, 1), *repeated)
    yield "a layer that the queries share", lambda task: ranked(turn, task, shared(task.queries))

    once = fit(all_queries(learnt.queries), targets(1), learnt.weights)
    for copies in (1, 4):

        def repeat(task: Task, copies: int = copies) -> str:
            return ranked(turn, task, once(all_queries(task.queries))[:, None].repeat(1, copies, 1))

        yield f"a layer over all queries, one soft prompt, {copies} times", repeat
    for count in (4, 6):
        layer = fit(all_queries(learnt.queries), targets(count), learnt.weights)

        def measure(task: Task, layer: Any = layer, count: int = count) -> str:
            return ranked(turn, task, layer(all_queries(task.queries)).view(len(task.queries), count, -1))

        yield f"a layer over all queries, the answer's first {count} tokens", measure


@torch.no_grad()
def ranked(language: Any, task: Task, soft_prompts: Tensor) -> str:
    """Rank the labels of a task after soft prompts [N, K, W]."""
    sums = []
    for rows in soft_prompts.split(BATCH):
        scores, counts = language.score(rows, [task.prompt] * len(rows), task.labels)
        sums.append(scores)
    together = torch.cat(sums)
    return " / ".join(f"{task.right(finish_scores(together, counts, scoring)):.0f}" for scoring in ("sum", "prior"))


def print_table(title: str, tasks: Sequence[Task], rows: Iterable[tuple[str, Measured]]) -> None:
    """Print a table row by row, as each is measured."""
    print(f"\n## {title}\n\n| | {' | '.join(f'{task.name} (n = {len(task.truth)})' for task in tasks)} |")
    print(f"| --- |{' ---: |' * len(tasks)}", flush=True)
    for name, measure in rows:
        print(f"| {name} | {' | '.join(measure(task) for task in tasks)} |", flush=True)


if __name__ == "__main__":
    main()
