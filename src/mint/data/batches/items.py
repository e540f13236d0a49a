"""What is learnt: items, each a question about a clip with its answers, made of the examples of either stage.

A mixture needs a few facts of all items before any is drawn: task, corpus, length. `ListedItems` takes them from the
items themselves. `IndexedItems` takes them from the index of large manifests, and makes an item only when it is drawn;
it holds the same items in the same order.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mint.data.manifests.index import Lines
from mint.types import CAPTION_PROMPT, Example

Draw: TypeAlias = tuple[int, int]
"""Index of an item, and the number of this draw of it: caption, window and hard negatives follow from the number."""


@dataclass(frozen=True)
class Item:
    """Something to learn: what to say about a clip when asked."""

    example: Example
    task: str
    prompt: str
    answers: tuple[str, ...]
    """One is drawn each time."""


class Items(Sequence[Item]):
    """Items, with what a mixture needs to know of all of them."""

    @abstractmethod
    def tasks(self) -> list[str]:
        """Return the task of each item."""

    @abstractmethod
    def corpora(self) -> list[str]:
        """Return the corpus of each item."""

    @abstractmethod
    def sizes(self) -> NDArray[np.int64]:
        """Return about how long the text of each item is, [N]: the characters of its prompt and first answer."""

    @abstractmethod
    def asking(self) -> list[int]:
        """Return the indices of the items that ask for anything but a caption."""

    def groups(self, weights: Mapping[str, float]) -> list[str]:
        """Return the name by which each item is weighed.

        That is `TASK/CORPUS` if the weights name it, else its corpus if they name that and no task has this name, else
        its task.
        """
        tasks = self.tasks()
        named = set(weights) - set(tasks)
        # Most mixtures weigh tasks alone: a million corpora need not be read.
        if not named:
            return tasks

        groups = []
        for task, corpus in zip(tasks, self.corpora(), strict=True):
            if f"{task}/{corpus}" in named:
                groups.append(f"{task}/{corpus}")
            elif corpus in named:
                groups.append(corpus)
            else:
                groups.append(task)
        return groups


class ListedItems(Items):
    """Items in memory."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = list(items)

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        return self.items[index]

    def tasks(self) -> list[str]:
        """Return the task of each item."""
        return [item.task for item in self.items]

    def corpora(self) -> list[str]:
        """Return the corpus of each item."""
        return [item.example.corpus for item in self.items]

    def sizes(self) -> NDArray[np.int64]:
        """Return the characters of each item's prompt and first answer, [N]."""
        return np.array([len(item.prompt) + len(item.answers[0]) for item in self.items], np.int64)

    def asking(self) -> list[int]:
        """Return the indices of the items that ask for anything but a caption."""
        return [index for index, item in enumerate(self.items) if item.prompt != CAPTION_PROMPT]


class IndexedItems(Items):
    """The items of indexed manifests, each made when it is asked for.

    Args:
        lines: the examples.
        counts: number of items of each example, [E].
        make: turns an example into its items.
        with_questions: an example with prompt and answer has these as its first item (stage 2).
    """

    def __init__(
        self,
        lines: Lines,
        counts: NDArray[np.int64],
        make: Callable[[Example], list[Item]],
        with_questions: bool,
    ) -> None:
        self.lines = lines
        self.make = make

        # The row of each item's example [N], and its index among the items of that example [N].
        self.rows = np.repeat(np.arange(len(lines), dtype=np.int32), counts)
        first_of_example = np.repeat(np.cumsum(counts) - counts, counts)
        self.indices = (np.arange(len(self.rows)) - first_of_example).astype(np.int8)  # an example has two at most

        # Which items are a prompt with its answer [N]; the others are captions, and in stage 1 all are.
        has_question = (lines.rows["question"] > 0)[self.rows]
        self.is_question = (self.indices == 0) & has_question & with_questions
        self.with_questions = with_questions

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        # The line is read and parsed here; nothing of it is kept.
        return self.make(self.lines[int(self.rows[index])])[self.indices[index]]

    def tasks(self) -> list[str]:
        """Return the task of each item."""
        names = (*self.lines.tasks, "captioning")
        # In stage 2 whatever is no question is captioning; in stage 1 a caption belongs to the task of its clip.
        is_captioning = ~self.is_question & self.with_questions
        numbers = np.where(is_captioning, len(names) - 1, self.lines.rows["task"][self.rows])
        return [names[number] for number in numbers.tolist()]

    def corpora(self) -> list[str]:
        """Return the corpus of each item."""
        return [self.lines.corpora[number] for number in self.lines.rows["corpus"][self.rows].tolist()]

    def sizes(self) -> NDArray[np.int64]:
        """Return the characters of each item's prompt and first answer, [N]."""
        rows = self.lines.rows
        question, caption = rows["question"][self.rows], rows["caption"][self.rows]  # characters, [N]
        has_captions = (rows["captions"] > 0)[self.rows]

        # In stage 1 prompt and answer are one text, with a space between them, that follows the caption prompt.
        told = len(CAPTION_PROMPT) + np.where(has_captions, caption, question + 1)
        return np.where(self.is_question, question, told)

    def asking(self) -> list[int]:
        """Return the indices of the items that ask for anything but a caption."""
        indices: list[int] = np.flatnonzero(self.is_question & self.lines.rows["asks"][self.rows]).tolist()
        return indices


def caption_items(examples: Sequence[Example]) -> Items:
    """Return the items of stage 1: every clip with its captions, and its prompt with its answer as one text more.

    The latter is ours (the paper's stage 1 has captions alone): it is the text by which similarity ranking asks.
    """
    if isinstance(examples, Lines):
        has_text = (examples.rows["captions"] > 0) | (examples.rows["question"] > 0)
        return IndexedItems(examples, has_text.astype(int), _captions_of, with_questions=False)
    return ListedItems(list(chain.from_iterable(map(_captions_of, examples))))


def instruction_items(examples: Sequence[Example]) -> Items:
    """Return the items of stage 2: the question of a clip's task with its answer, and captioning if it has captions."""
    if isinstance(examples, Lines):
        counts = (examples.rows["captions"] > 0).astype(int) + (examples.rows["question"] > 0)
        return IndexedItems(examples, counts, _instructions_of, with_questions=True)
    return ListedItems(list(chain.from_iterable(map(_instructions_of, examples))))


def _captions_of(example: Example) -> list[Item]:
    question = (f"{example.prompt} {example.answer}",) if example.prompt and example.answer else ()
    texts = example.captions + question
    # A clip about which nothing is said teaches stage 1 nothing.
    return [Item(example, example.task, CAPTION_PROMPT, texts)] if texts else []


def _instructions_of(example: Example) -> list[Item]:
    items = []
    if example.prompt and example.answer:
        items.append(Item(example, example.task, example.prompt, (example.answer,)))
    if example.captions:
        items.append(Item(example, "captioning", CAPTION_PROMPT, example.captions))
    return items


class ItemDataset(Dataset[dict[str, object]]):
    """Items with their audio features, indexed by draws.

    Args:
        items: what may be drawn.
        features: (example, number of the draw) to a window of frozen features [T, D].
    """

    def __init__(self, items: Items, features: Callable[[Example, int], Tensor]) -> None:
        self.items = items
        self.features = features

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, draw: Draw) -> dict[str, object]:
        """Return features [T, D], prompt, answer and number of one draw."""
        index, number = draw
        item = self.items[index]
        # One number chooses both, so that every caption meets every window.
        window, answer = divmod(number, len(item.answers))
        return {
            "features": self.features(item.example, window),
            "prompt": item.prompt,
            "answer": item.answers[answer],
            "draw": number,
        }
