"""What a person may choose about an evaluation; the paper is silent on all of it. It travels with the results."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from mint.types import MintError

if TYPE_CHECKING:
    from mint.predict import Scoring

Strategy = Literal["greedy", "beam", "nucleus"]

CAPTION_TOKENS = 30
"""Longest caption, as long as those that Bridge-Net reads (paper, section 3.2)."""
BEAMS, TOP_P, TEMPERATURE = 5, 0.9, 1.0
"""Those of InstructBLIP's published code."""
RETRIEVED_CLIPS, CAPTIONED_CLIPS = 200, 240
"""Of the quickstart, whose evaluation is to be short; `mint evaluate` takes all clips."""
DEPTH = 10
"""Ranks beyond this one are not told apart in retrieval."""
STRATEGY_OF: dict[str, Strategy] = {"beams": "beam", "top_p": "nucleus", "temperature": "nucleus", "seed": "nucleus"}
LABEL = "{label}"
SCORINGS = {"mean": "log-likelihood a token", "prior": "log-likelihood above the mean over clips"}


@dataclass(frozen=True)
class Decoding:
    """How text is generated.

    What is None takes its strategy's default (5 beams; top-p 0.9, temperature 1, seed 0); no other strategy reads it.

    Raises:
        MintError: a value out of its range, or one that the strategy does not read.
    """

    strategy: Strategy | None = None
    """None: that of the other options, else greedy."""
    beams: int | None = None
    top_p: float | None = None
    """Smallest set of tokens whose probabilities reach this sum; one of them is drawn."""
    temperature: float | None = None
    seed: int | None = None
    """Of the draws."""
    max_tokens: int = CAPTION_TOKENS

    def __post_init__(self) -> None:
        """Refuse contradictions, fill in defaults."""
        given = {name: value for name in STRATEGY_OF if (value := getattr(self, name)) is not None}
        strategy = self.strategy or next((STRATEGY_OF[name] for name in given), "greedy")
        if strategy not in get_args(Strategy):
            raise MintError(f"decoding is {strategy!r}; choose one of {', '.join(get_args(Strategy))}")
        for name in given:
            if strategy != STRATEGY_OF[name]:
                raise MintError(f"{name} belongs to {STRATEGY_OF[name]} decoding, not to {strategy}; leave it out")
        defaults: dict[str, Any] = {"beams": BEAMS, "top_p": TOP_P, "temperature": TEMPERATURE, "seed": 0}
        object.__setattr__(self, "strategy", strategy)
        for name, value in defaults.items():
            if strategy == STRATEGY_OF[name]:
                object.__setattr__(self, name, given.get(name, value))
        if self.max_tokens < 1 or (self.beams is not None and self.beams < 1):
            raise MintError(f"max_tokens is {self.max_tokens} and beams {self.beams}; both must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise MintError(f"top_p is {self.top_p}; give a number above 0 and at most 1")
        if self.temperature is not None and not self.temperature > 0:
            raise MintError(f"temperature is {self.temperature}; give a number above 0")

    def options(self) -> dict[str, Any]:
        """For `mint.evaluation.predict.generate`; the others are those of transformers' `generate`."""
        options: dict[str, Any] = {"max_new_tokens": self.max_tokens, "do_sample": self.strategy == "nucleus"}
        if self.strategy == "beam":
            options["num_beams"] = self.beams
        if self.strategy == "nucleus":  # transformers would also cut to the 50 likeliest tokens
            options |= {"top_p": self.top_p, "temperature": self.temperature, "top_k": 0, "seed": self.seed}
        return options

    def record(self) -> dict[str, Any]:
        """For a results file: what was used, nothing that was not."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Settings:
    """All choices."""

    scoring: Scoring = "sum"
    """Of vocabulary ranking."""
    templates: tuple[str, ...] = ()
    """Texts with `{label}` in them, whose embeddings are averaged for similarity ranking; none: the task's prompt."""
    decoding: Decoding = field(default_factory=Decoding)
    reranked: int | None = None
    """First items of each retrieval query that the matching head puts in order; None: it re-ranks nothing.

    The paper does not rank by it, and a head that has learnt little makes retrieval worse.
    """
    retrieved_clips: int | None = None
    """A sample of so many; None: all."""
    captioned_clips: int | None = None

    def __post_init__(self) -> None:
        """Refuse templates that say nothing of the label, and counts that measure nothing."""
        for clips in (self.retrieved_clips, self.captioned_clips):
            if clips is not None and clips < 1:
                raise MintError(f"{clips} clips cannot be measured; give at least 1")
        if self.reranked is not None and self.reranked < DEPTH:
            raise MintError(f"reranked is {self.reranked}; re-rank at least {DEPTH} items")
        for template in self.templates:
            if LABEL not in template:
                raise MintError(f"template {template!r} has no {LABEL} in it; write for example 'the sound of {LABEL}'")

    def record(self) -> dict[str, Any]:
        """For a results file."""
        return {**asdict(self), "templates": list(self.templates), "decoding": self.decoding.record()}

    def texts(self, prompt: str, label: str) -> list[str]:
        """What is compared with a clip for a label."""
        return [template.replace(LABEL, label) for template in self.templates or (f"{prompt} {LABEL}",)]


QUICK = Settings(retrieved_clips=RETRIEVED_CLIPS, captioned_clips=CAPTIONED_CLIPS)
"""Of the quickstart."""


def describe_settings(record: dict[str, Any]) -> dict[str, str]:
    """What `Settings.record` holds, in words, by what it is about; the usual scoring and prompt go unsaid."""
    words = {}
    if record["scoring"] != "sum":
        words["stage2"] = f"labels ranked by {SCORINGS[record['scoring']]}"
    if templates := record["templates"]:
        words["stage1"] = "labels compared as " + ", ".join(f"“{template}”" for template in templates)
    return {**words, "captions": f"captions by {describe_decoding(record['decoding'])}"}


def describe_decoding(record: dict[str, Any]) -> str:
    """What `Decoding.record` holds, in words."""
    words = {
        "greedy": "greedy decoding",
        "beam": "beam search with {beams} beams",
        "nucleus": "nucleus sampling with top-p {top_p:g}, temperature {temperature:g}, seed {seed}",
    }
    return f"{words[record['strategy']].format(**record)}, {record['max_tokens']} tokens at most"
