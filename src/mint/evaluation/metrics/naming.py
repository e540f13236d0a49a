"""Whether a caption names the label of its clip, and how often captions do so by accident.

A caption names a label if the label stands in it as whole words, in any case, singular or plural, and no other label of
the task does: a caption that lists several families has named none of them. Where one label is part of another ("bass"
in "bass drum"), the longer one is what is named.
"""

from __future__ import annotations

import re
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
    spans: dict[str, list[tuple[int, int]]] = {}
    for label in labels:
        if found := [match.span() for match in _pattern(label).finditer(caption.lower())]:
            spans[label] = found

    named = set()
    for label, own_spans in spans.items():
        others = [span for other, found in spans.items() if other != label for span in found]
        if any(not _is_part(span, others) for span in own_spans):
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
    named = [named_labels(caption, vocabulary) for caption in captions]
    right = np.array([found == {label} for found, label in zip(named, wanted, strict=True)], dtype=np.float64)
    if len(captions) < 2:
        return right, np.full(len(captions), np.nan)

    counts = dict.fromkeys(vocabulary, 0)
    for found in named:
        if len(found) == 1:
            counts[next(iter(found))] += 1
    of_all = np.array([counts[label] for label in wanted], dtype=np.float64)
    return right, (of_all - right) / (len(captions) - 1)


def _is_part(span: tuple[int, int], others: Sequence[tuple[int, int]]) -> bool:
    """Return whether a span lies within a longer one."""
    return any(first <= span[0] and span[1] <= last and last - first > span[1] - span[0] for first, last in others)


@cache
def _pattern(label: str) -> re.Pattern[str]:
    """Return what finds a label in a caption in lower case."""
    *first, last = re.split(r"[\s_-]+", label.strip().lower())
    if not last:
        raise MintError("the label is empty; it cannot be looked for in a caption")
    forms = {last, last + "s", last + "es", re.sub(r"(?<=[^aeiou])y$", "ies", last)}
    if last.endswith("s") and not last.endswith("ss"):
        forms.add(last[:-1])
    words = [*map(re.escape, first), f"(?:{'|'.join(map(re.escape, sorted(forms)))})"]
    return re.compile(r"(?<!\w)" + r"[\s_-]+".join(words) + r"(?!\w)")
