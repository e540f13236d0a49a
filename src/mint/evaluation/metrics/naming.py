"""Whether a caption names the label of its clip, and how often captions do so by accident.

A caption names a label if the label stands in it as whole words, in any case, singular or plural, and no other label of
the task does: a caption that lists several families has named none of them. Where one label is part of another ("bass"
in "bass drum"), the longer one is what is named.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from mint.types import MintError

if TYPE_CHECKING:
    from mint.evaluation.metrics.classification import Floats


def named_labels(caption: str, labels: Sequence[str]) -> set[str]:
    """Return the labels that a caption names; `_` and `-` are read as spaces.

    Raises:
        MintError: an empty label.
    """
    spans: list[tuple[str, int, int]] = []
    for label in set(labels):
        for match in _pattern(label).finditer(caption.lower()):
            spans.append((label, *match.span()))

    # "electric guitar" names that instrument, and not the label "guitar", which is a part of it.
    named = set()
    for label, start, end in spans:
        if not _is_within_longer(start, end, spans):
            named.add(label)
    return named


def names_label(caption: str, label: str, labels: Sequence[str]) -> bool:
    """Return whether a caption names its label and no other.

    Args:
        caption: the text.
        label: what is true.
        labels: all labels of the task.
    """
    return named_labels(caption, [*labels, label]) == {label}


def naming(captions: Sequence[str], wanted: Sequence[str], labels: Sequence[str]) -> tuple[Floats, Floats]:
    """Measure which captions name the label of their clip, and which would by accident.

    Args:
        captions: one for each of N clips of a task.
        wanted: the label of each clip [N].
        labels: all labels of the task.

    Returns:
        1.0 for each clip whose caption names its label, else 0.0 [N]; and the share of the captions of the other clips
        that name it [N], NaN where there is no other clip.
    """
    vocabulary = sorted({*labels, *wanted})
    right = np.zeros(len(captions))
    counts: Counter[str] = Counter()
    for index, (caption, label) in enumerate(zip(captions, wanted, strict=True)):
        # A caption that lists several labels names none: it would be right by listing all.
        named = named_labels(caption, vocabulary)
        if len(named) == 1:
            counts.update(named)
            right[index] = named == {label}
    if len(captions) < 2:
        return right, np.full(len(captions), np.nan)

    # The clip's own caption does not count: it names its label by what was heard, not by accident.
    of_all = np.array([counts[label] for label in wanted], dtype=np.float64)
    return right, (of_all - right) / (len(captions) - 1)


def _is_within_longer(start: int, end: int, spans: Sequence[tuple[str, int, int]]) -> bool:
    """Return whether the characters from start to end lie within a longer span of any label."""
    longer = [(first, last) for _, first, last in spans if last - first > end - start]
    return any(first <= start and end <= last for first, last in longer)


@cache
def _pattern(label: str) -> re.Pattern[str]:
    """Return what finds a label in a caption in lower case."""
    *first, last = re.split(r"[\s_-]+", label.strip().lower())
    if not last:
        raise MintError("the label is empty; it cannot be looked for in a caption")
    # One and several: drum and drums, church and churches, battery and batteries (but key and keys).
    forms = {last, last + "s", last + "es", re.sub(r"(?<=[^aeiou])y$", "ies", last)}
    # A label that is a plural itself (bells) is also named by one of them; brass is not one.
    if last.endswith("s") and not last.endswith("ss"):
        forms.add(last[:-1])
    words = [*map(re.escape, first), f"(?:{'|'.join(map(re.escape, sorted(forms)))})"]
    # Whole words only, and not `\b`, which a label such as "r&b" or "c++" does not end at.
    return re.compile(r"(?<!\w)" + r"[\s_-]+".join(words) + r"(?!\w)")
