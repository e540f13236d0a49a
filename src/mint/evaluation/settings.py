"""The choices of an evaluation. The paper is silent on all of them, so they are written into the results."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from mint.types import MintError

if TYPE_CHECKING:
    from mint.predict import Scoring

Strategy = Literal["greedy", "beam", "nucleus"]

CAPTION_TOKENS = 30
"""Longest caption, as long as those that Bridge-Net reads (paper, section 3.2)."""
BEAMS, TOP_P, TEMPERATURE = 5, 0.9, 1.0
"""Defaults of beam search and nucleus sampling: those of InstructBLIP's published code."""
RETRIEVED_CLIPS, CAPTIONED_CLIPS = 200, 240
"""Clips of the quickstart, whose evaluation is to be short; `mint evaluate` takes all."""
DEPTH = 10
"""The last rank that retrieval tells apart from those beyond it."""
STRATEGY_OF: dict[str, Strategy] = {"beams": "beam", "top_p": "nucleus", "temperature": "nucleus", "seed": "nucleus"}
"""The strategy that reads each option."""
DEFAULTS: dict[str, Any] = {"beams": BEAMS, "top_p": TOP_P, "temperature": TEMPERATURE, "seed": 0}
LABEL = "{label}"
"""Stands for the label in a template."""
SCORINGS = {
    "mean": "log-likelihood for each token",
    "prior": "log-likelihood above the mean over clips",
    "calibrated": "their share of the likelihood, above that in reference clips",
}
"""The scorings other than the usual one, in words."""


@dataclass(frozen=True)
class Decoding:
    """How text is generated.

    An option that is None takes the default of its strategy: 5 beams; top-p 0.9, temperature 1 and seed 0.

    Raises:
        MintError: a value is out of its range, or the strategy does not read it.
    """

    strategy: Strategy | None = None
    """None: the strategy of the other options, or greedy decoding without any."""
    beams: int | None = None
    top_p: float | None = None
    """A token is drawn from the smallest set of tokens whose probabilities reach this sum."""
    temperature: float | None = None
    seed: int | None = None
    """Seed of the draws."""
    max_tokens: int = CAPTION_TOKENS
    """Tokens of the longest answer."""

    def __post_init__(self) -> None:
        """Refuse contradictions, and fill in the defaults."""
        given = {name: getattr(self, name) for name in STRATEGY_OF if getattr(self, name) is not None}
        # Whoever gives `beams` or `top_p` has thereby said which strategy is meant.
        strategy = self.strategy or next((STRATEGY_OF[name] for name in given), "greedy")
        if strategy not in get_args(Strategy):
            raise MintError(f"decoding is {strategy!r}; choose one of {', '.join(get_args(Strategy))}")
        for name in given:
            if strategy != STRATEGY_OF[name]:
                raise MintError(f"{name} belongs to {STRATEGY_OF[name]} decoding, not to {strategy}; leave it out")

        # The dataclass is frozen for everybody but its own beginning.
        object.__setattr__(self, "strategy", strategy)
        for name, default in DEFAULTS.items():
            if strategy == STRATEGY_OF[name]:
                object.__setattr__(self, name, given.get(name, default))

        if self.max_tokens < 1 or (self.beams is not None and self.beams < 1):
            raise MintError(f"max_tokens is {self.max_tokens} and beams {self.beams}; both must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise MintError(f"top_p is {self.top_p}; give a number above 0 and at most 1")
        if self.temperature is not None and not self.temperature > 0:
            raise MintError(f"temperature is {self.temperature}; give a number above 0")

    def options(self) -> dict[str, Any]:
        """Return the options of `mint.predict.generate`, most of which are those of transformers' `generate`."""
        options: dict[str, Any] = {"max_new_tokens": self.max_tokens, "do_sample": self.strategy == "nucleus"}
        if self.strategy == "beam":
            options["num_beams"] = self.beams
        if self.strategy == "nucleus":
            # Without `top_k`, transformers would also cut to the 50 likeliest tokens.
            options |= {"top_p": self.top_p, "temperature": self.temperature, "top_k": 0, "seed": self.seed}
        return options

    def record(self) -> dict[str, Any]:
        """Return the options that were used, for a results file."""
        # Options of other strategies are None and say nothing.
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Settings:
    """All choices of an evaluation."""

    scoring: Scoring | None = None
    """The scoring of vocabulary ranking, see `mint.predict.finish_scores`; None: the one that the run is meant for."""
    templates: tuple[str, ...] = ()
    """Texts with `{label}` in them, whose embeddings are averaged for similarity ranking; none: the task's prompt."""
    decoding: Decoding = field(default_factory=Decoding)
    reranked: int | None = None
    """First items of each retrieval query that the matching head puts in order; None: it re-ranks nothing.

    The paper does not rank by it, and a head that has learnt little makes retrieval worse.
    """
    retrieved_clips: int | None = None
    """The size of the sample of clips for retrieval; None: all clips."""
    captioned_clips: int | None = None
    """The size of the sample of clips that are captioned; None: all clips."""

    def __post_init__(self) -> None:
        """Refuse templates without a label, and counts that measure nothing."""
        for clips in (self.retrieved_clips, self.captioned_clips):
            if clips is not None and clips < 1:
                raise MintError(f"{clips} clips cannot be measured; give at least 1")
        # Fewer than the depth of `map@10` would mix two rankings in one figure.
        if self.reranked is not None and self.reranked < DEPTH:
            raise MintError(f"reranked is {self.reranked}; re-rank at least {DEPTH} items")
        for template in self.templates:
            if LABEL not in template:
                raise MintError(f"template {template!r} has no {LABEL} in it; write for example 'the sound of {LABEL}'")

    def settled(self, own: Scoring) -> Settings:
        """Return the same choices with a scoring, the run's own where none was chosen."""
        return self if self.scoring is not None else replace(self, scoring=own)

    def record(self) -> dict[str, Any]:
        """Return all choices, for a results file."""
        return {**asdict(self), "templates": list(self.templates), "decoding": self.decoding.record()}

    def texts(self, prompt: str, label: str) -> list[str]:
        """Return the texts that are compared with a clip for a label."""
        if not self.templates:
            # What stage 2 is asked and answers, so that both stages read the same words.
            return [f"{prompt} {label}"]
        return [template.replace(LABEL, label) for template in self.templates]


QUICK = Settings(retrieved_clips=RETRIEVED_CLIPS, captioned_clips=CAPTIONED_CLIPS)
"""The choices of the quickstart."""


def describe_settings(record: dict[str, Any]) -> dict[str, str]:
    """Describe what `Settings.record` holds, by what it is about; the usual scoring and prompt are not mentioned."""
    words = {}
    # Without a scoring there is no stage 2, or the file is from before a run had one of its own.
    if record["scoring"] in SCORINGS:
        words["stage2"] = f"labels ranked by {SCORINGS[record['scoring']]}"
    if templates := record["templates"]:
        words["stage1"] = "labels compared as " + ", ".join(f"“{template}”" for template in templates)
    return {**words, "captions": f"captions by {describe_decoding(record['decoding'])}"}


def describe_decoding(record: dict[str, Any]) -> str:
    """Describe what `Decoding.record` holds."""
    words = {
        "greedy": "greedy decoding",
        "beam": "beam search with {beams} beams",
        "nucleus": "nucleus sampling with top-p {top_p:g}, temperature {temperature:g}, seed {seed}",
    }
    return f"{words[record['strategy']].format(**record)}, {record['max_tokens']} tokens at most"
