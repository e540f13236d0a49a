"""What an item is: made of an example of either stage, weighed by task or corpus, drawn with caption and window."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch

from mint.data.batches.items import Item, ItemDataset, ListedItems, caption_items, instruction_items
from mint.data.batches.sampler import MixtureSampler
from mint.types import CAPTION_PROMPT, Example


def example(**facts: Any) -> Example:
    return Example(**{"id": "a", "audio": Path("a.wav"), "task": "notes", "split": "train", "corpus": "c", **facts})


def test_stage_1_learns_captions_and_the_answered_prompt() -> None:
    both = example(captions=("a harp", "harp"), prompt="The instrument is", answer="harp")
    items = caption_items([both, example(captions=("rain",)), example(prompt="The key is", answer="C"), example()])
    assert [item.answers for item in items] == [
        ("a harp", "harp", "The instrument is harp"),
        ("rain",),
        ("The key is C",),
    ]
    assert {item.prompt for item in items} == {CAPTION_PROMPT}


def test_stage_2_learns_the_task_and_captioning() -> None:
    both = example(captions=("a harp", "harp"), prompt="The instrument is", answer="harp")
    items = instruction_items([both, example(captions=("rain",)), example(prompt="unanswered"), example()])
    assert [(item.task, item.prompt, item.answers) for item in items] == [
        ("notes", "The instrument is", ("harp",)),
        ("captioning", CAPTION_PROMPT, ("a harp", "harp")),
        ("captioning", CAPTION_PROMPT, ("rain",)),
    ]


def test_corpora_that_share_a_task_have_weights_of_their_own() -> None:
    clips = [
        example(task="captioning", corpus=corpus, captions=("a",)) for corpus in ("clotho", "wavcaps", "audiocaps")
    ]
    items = instruction_items([*clips, example(corpus="notes", prompt="p", answer="a", captions=("a",))])
    captions = ["captioning"] * 3
    assert items.groups({}) == [*captions, "notes", "captioning"]
    assert items.groups({"notes": 1, "captioning": 2}) == [*captions, "notes", "captioning"]  # tasks come first
    assert items.groups({"clotho": 1}) == ["clotho", "captioning", "captioning", "notes", "captioning"]
    shared = {"captioning/notes": 1, "clotho": 1, "wavcaps": 1}  # a task is called as this corpus is
    assert items.groups(shared) == ["clotho", "wavcaps", "captioning", "notes", "captioning/notes"]
    assert items.groups({"captioning/clotho": 1, "clotho": 1})[0] == "captioning/clotho"
    weights = {"clotho": 1, "wavcaps": 2, "audiocaps": 3, "captioning": 4}
    sampler = MixtureSampler(items.groups(weights), weights | {"notes": 0}, 100)
    assert Counter(index for index, _ in sampler) == {0: 10, 1: 20, 2: 30, 4: 40}


def test_a_draw_chooses_caption_and_window() -> None:
    item = Item(example(), "notes", "p", ("a", "b"))
    dataset = ItemDataset(ListedItems([item]), lambda _, number: torch.tensor(number % 2))
    draws = [dataset[0, number] for number in range(8)]
    assert [draw["draw"] for draw in draws] == list(range(8))
    pairs = Counter((draw["answer"], int(draw["features"])) for draw in draws)  # type: ignore[call-overload]
    assert pairs == {(answer, window): 2 for answer in "ab" for window in (0, 1)}
