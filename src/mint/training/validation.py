"""Validation while a run trains: the losses on a part that is held out, and what the stage is for.

Stage 1: recall of each clip's text among all held-out texts, and of each text's clip. Stage 2: accuracy of the answer
that vocabulary ranking chooses among the task's answers. The published code validates neither (its stage 1 has no
validation at all). With several ranks each takes its part of every global batch, and the figures are those of one
process with the same global batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, distributed, nn

from mint.config import Recipe
from mint.data.batches.items import Item, Items
from mint.model import gather
from mint.model.evaluating import evaluating
from mint.model.objectives.alc import similarity
from mint.types import Example

LIMIT = 1000
"""Held-out items that are looked at, at even distances: validation is to be short beside the steps between two."""
WAYS = ("text_to_audio", "audio_to_text")
"""The two directions of retrieval."""
DEPTHS = (1, 5, 10)
"""The values of k in recall@k."""
TIE = 1e-5
"""Similarities that differ by less are the same: equal texts in batches of other sizes differ in the last digits."""
CANDIDATES = 200
"""A task with more different answers is not ranked (captions)."""

Row = TypeVar("Row")


def figure_names(recipe: Recipe) -> list[str]:
    """Return the names of what validation of a recipe may give; the Trainer puts `eval_` before each."""
    if recipe.objectives is None:
        return ["loss", "accuracy"]
    names = ["loss"]
    for name in ("alc", "alm", "atg"):
        if getattr(recipe.objectives, name):
            names.append(name)
    for way in WAYS:
        names += [f"{way}_recall@{depth}" for depth in DEPTHS]
    return names


class Measure(Protocol):
    """The figures by which a stage is judged, beside its losses."""

    def rows(self, model: Any, batch: Mapping[str, Tensor], items: Sequence[Item]) -> dict[str, Tensor]:
        """Return what the figures need of one batch: tensors with one row an item, of equal shapes in all batches."""
        ...

    def figures(self, rows: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the figures of all rows."""
        ...


class Retrieval:
    """Stage 1: recall@k among the held-out pairs, by the similarity of ALC."""

    def rows(self, model: Any, batch: Mapping[str, Tensor], items: Sequence[Item]) -> dict[str, Tensor]:
        """Return clips [B, Q, E] and texts [B, E] in the shared space."""
        return {
            "clips": model.embed_audio(batch["audio_features"], batch["audio_mask"]),
            "texts": model.embed_text(batch["text_ids"], batch["text_mask"]),
        }

    def figures(self, rows: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the recall both ways; a pair as similar as the right one counts as before it."""
        # [N, N]: clips down, texts across; the pairs stand on the diagonal.
        scores = similarity(rows["clips"], rows["texts"])
        right = scores.diagonal()
        figures: dict[str, float] = {}
        for way, table in zip(WAYS, (scores.T, scores), strict=True):
            # Less one: the right pair is itself not below its own similarity.
            before = (table > right[:, None] - TIE).sum(dim=1) - 1  # [N]
            for depth in DEPTHS:
                figures[f"{way}_recall@{depth}"] = float((before < depth).float().mean())
        return figures


class Accuracy:
    """Stage 2: whether the right answer is the likeliest among its task's.

    Args:
        *groups: the items of training, and those of validation; their answers are the candidates.
    """

    def __init__(self, *groups: Items) -> None:
        answers: dict[str, dict[str, None]] = {}
        for items in groups:
            for index, task in enumerate(items.tasks()):
                of_task = answers.setdefault(task, {})
                # Of captions there may be millions, and reading an item may mean reading a line of a manifest.
                if len(of_task) <= CANDIDATES:
                    of_task.update(dict.fromkeys(items[index].answers))
        self.candidates: dict[str, list[str]] = {}
        for task, of_task in answers.items():
            if len(of_task) <= CANDIDATES:
                self.candidates[task] = list(of_task)

    def rows(self, model: Any, batch: Mapping[str, Tensor], items: Sequence[Item]) -> dict[str, Tensor]:
        """Return which answers are right, [B]: 1 right, 0 wrong, -1 not ranked."""
        soft = model.soft_prompt(  # [B, Q, W]
            batch["audio_features"], batch["audio_mask"], batch["instruction_ids"], batch["instruction_mask"]
        )
        right = torch.full((len(items),), -1, device=soft.device)
        for task, candidates in self.candidates.items():
            of_task = [row for row, item in enumerate(items) if item.task == task]
            if not gather.any_rank(bool(of_task), soft.device):
                continue

            # A rank that has none runs the model too, on any row: sharded blocks are gathered by all ranks together.
            asked = of_task or [0]
            sums, _ = model.language.score(soft[asked], [items[row].prompt for row in asked], candidates)
            # Not strict: of the row that was only run along nothing is kept.
            for row, index in zip(of_task, sums.argmax(dim=1).tolist(), strict=False):
                right[row] = int(candidates[index] in items[row].answers)
        return {"right": right}

    def figures(self, rows: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the accuracy over all ranked items."""
        ranked = rows["right"][rows["right"] >= 0]
        return {"accuracy": float(ranked.float().mean())} if len(ranked) else {}


@dataclass(frozen=True)
class Validation:
    """The held-out part of a run and how it is measured."""

    items: Sequence[Item]
    """The items that are held out."""
    features: Callable[[Example, int], Tensor]
    """From an example and the number of a draw to a window of its features [T, D]."""
    collator: Callable[[Sequence[dict[str, Any]]], dict[str, Tensor]]
    """The collator of the stage."""
    measure: Measure
    """The figures of the stage."""

    @torch.no_grad()
    def run(self, model: nn.Module, batch_size: int, device: torch.device, autocast: Any) -> dict[str, float]:
        """Return losses and figures of a model, the same on every rank; it is left in the mode that it was in.

        Args:
            model: the stage model.
            batch_size: the batch of one rank.
            device: the device of the model.
            autocast: makes the context of the forward passes.
        """
        losses: list[dict[str, float]] = []
        sizes: list[int] = []
        rows: list[dict[str, Tensor]] = []
        with evaluating(model):
            for numbered, size in self._batches(batch_size):
                batch = {name: tensor.to(device) for name, tensor in self.collator(self._drawn(numbered)).items()}
                with autocast():
                    losses.append({name: float(value) for name, value in model(**batch).items()})
                    measured = self.measure.rows(model, batch, [item for _, item in numbered])
                # On the CPU: the embeddings of a thousand items need not stay on the device.
                rows.append({name: row.float().cpu() for name, row in measured.items()})
                sizes.append(size)

        # The mean over this rank's parts, each of which counts as much as its global batch is large.
        means: dict[str, float] = {}
        for name in losses[0]:
            total = sum(loss[name] * size for loss, size in zip(losses, sizes, strict=True))
            means[name] = total / sum(sizes)
        joined = {}
        for name in rows[0]:
            joined[name] = torch.cat([row[name] for row in rows])

        # All ranks see the rows of all. Their losses weigh the same: each had a part of every global batch.
        everyone = _all_ranks((means, joined))
        mean_losses: dict[str, float] = {}
        for name in means:
            mean_losses[name] = sum(of_rank[name] for of_rank, _ in everyone) / len(everyone)
        every_row: dict[str, Tensor] = {}
        for name in joined:
            every_row[name] = torch.cat([of_rank[name] for _, of_rank in everyone])
        return {**mean_losses, **self.measure.figures(every_row)}

    def _drawn(self, numbered: Sequence[tuple[int, Item]]) -> list[dict[str, Any]]:
        """Return items as the training draws them, but always with the first window and the first answer."""
        drawn: list[dict[str, Any]] = []
        for number, item in numbered:
            window = self.features(item.example, 0)  # [T, D]
            drawn.append({"features": window, "prompt": item.prompt, "answer": item.answers[0], "draw": number})
        return drawn

    def _batches(self, batch_size: int) -> Iterator[tuple[list[tuple[int, Item]], int]]:
        """Yield this rank's part of each global batch, as numbered items, and the size of the global batch.

        Global batches are of like size, so that none has too few negatives, and each rank has a part of each: which
        items are in which batch depends on their number and on the size of the global batch, not on the ranks.
        """
        ranks = gather.world_size()
        rank = distributed.get_rank() if ranks > 1 else 0
        count = min(LIMIT, len(self.items))
        chosen = [(index, self.items[index * len(self.items) // count]) for index in range(count)]  # at even distances

        # As few batches as fit the size, but none with fewer items than ranks: an empty part has no loss.
        for batch in even_parts(chosen, min(-(-count // (batch_size * ranks)), count // ranks)):
            yield even_parts(batch, ranks)[rank], len(batch)


def even_parts(rows: list[Row], count: int) -> list[list[Row]]:
    """Return rows in a number of parts, in order, whose sizes differ by one at most."""
    ends = [len(rows) * number // count for number in range(count + 1)]
    return [rows[first:last] for first, last in pairwise(ends)]


def _all_ranks(value: Any) -> list[Any]:
    """Return the values of all ranks, in their order."""
    if gather.world_size() == 1:
        return [value]
    values: list[Any] = [None] * gather.world_size()
    distributed.all_gather_object(values, value)
    return values
