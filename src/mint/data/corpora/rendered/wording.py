"""Words for what is known of a rendered clip, shared by the corpora's captions."""

from __future__ import annotations

import random
from collections.abc import Sequence

CAPTIONS_PER_CLIP = (2, 3)


def captions(rng: random.Random, templates: Sequence[str], **facts: str) -> tuple[str, ...]:
    """Two or three different templates, filled in, first letter upper case, with a full stop.

    A template names facts as `{fact}`, or as `{a_fact}` with the indefinite article.
    """
    chosen = rng.sample(templates, rng.choice(CAPTIONS_PER_CLIP))
    articled = {f"a_{name}": with_article(text) for name, text in facts.items()}
    return tuple(_sentence(template.format(**facts, **articled)) for template in chosen)


def with_article(text: str) -> str:
    """'organ' -> 'an organ'."""
    return f"{'an' if text[:1].lower() in 'aeiou' else 'a'} {text}"


def enumeration(names: Sequence[str]) -> str:
    """'flute', 'guitar', 'drums' -> 'flute, guitar and drums'."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def loudness(velocity: int) -> str:
    """The word for a MIDI velocity."""
    return _word(velocity, ((37, "very soft"), (62, "soft"), (87, "medium loud"), (112, "loud"), (127, "very loud")))


def register(pitch: int) -> str:
    """The word for a MIDI pitch: low is below C3, high from C5."""
    return _word(pitch, ((47, "low"), (71, "middle"), (127, "high")))


def tempo(beats_a_minute: float) -> str:
    """The word for a tempo."""
    return _word(beats_a_minute, ((95, "slow"), (130, "mid-tempo"), (999, "fast")))


def _word(value: float, limits: Sequence[tuple[float, str]]) -> str:
    return next(word for limit, word in limits if value <= limit)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
