"""Words for what is known of a rendered clip, shared by the corpora's captions."""

from __future__ import annotations

import random
from collections.abc import Sequence

CAPTIONS_PER_CLIP = (2, 3)
# Each word holds up to its limit, the limit included.
LOUDNESS = ((37, "very soft"), (62, "soft"), (87, "medium loud"), (112, "loud"), (127, "very loud"))
REGISTERS = ((47, "low"), (71, "middle"), (127, "high"))
TEMPI = ((95, "slow"), (130, "mid-tempo"), (999, "fast"))


def captions(rng: random.Random, templates: Sequence[str], **facts: str) -> tuple[str, ...]:
    """Return two or three different templates, filled in, first letter upper case, with a full stop.

    A template names facts as `{fact}`, or as `{a_fact}` with the indefinite article.
    """
    # Drawn without repetition: two captions of a clip always differ.
    chosen = rng.sample(templates, rng.choice(CAPTIONS_PER_CLIP))
    words = dict(facts)
    for name, text in facts.items():
        words[f"a_{name}"] = with_article(text)
    return tuple(_sentence(template.format(**words)) for template in chosen)


def with_article(text: str) -> str:
    """Return a noun with its indefinite article: 'organ' becomes 'an organ'."""
    article = "an" if text[:1].lower() in "aeiou" else "a"
    return f"{article} {text}"


def enumeration(names: Sequence[str]) -> str:
    """Return names as a sentence has them: 'flute', 'guitar', 'drums' become 'flute, guitar and drums'."""
    # Without a comma before the "and", as in British English.
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def loudness(velocity: int) -> str:
    """Return the word for a MIDI velocity."""
    return _word(velocity, LOUDNESS)


def register(pitch: int) -> str:
    """Return the word for a MIDI pitch: low is below C3, high from C5."""
    return _word(pitch, REGISTERS)


def tempo(beats_a_minute: float) -> str:
    """Return the word for a tempo."""
    return _word(beats_a_minute, TEMPI)


def _word(value: float, limits: Sequence[tuple[float, str]]) -> str:
    """Return the word of the first limit that a value does not exceed."""
    return next(word for limit, word in limits if value <= limit)


def _sentence(text: str) -> str:
    """Return a phrase as a sentence."""
    return text[0].upper() + text[1:] + "."
