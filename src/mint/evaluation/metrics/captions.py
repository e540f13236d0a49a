"""Caption metrics by the community's own implementation (paper, section 4.2 and Table 4).

CIDEr-D, ROUGE-L, BLEU-4, METEOR and SPICE come from pycocoevalcap, whose code has been frozen since 2020 and gave the
published numbers; SPIDEr is the mean of CIDEr-D and SPICE, clip by clip. What cannot be computed is named with its
reason and leaves no number: no metric ever stands in for another, and one that fails or hangs takes no other with it.

Two departures, neither of which changes a number: the Penn Treebank tokeniser is pycocoevalcap's jar, but called
without the temporary file that it writes into its own folder (an installation may be read-only); and where Java is
missing or broken a regular expression takes its place, which gives the same tokens on all but two of Clotho's 29,645
captions; the result says so.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mint.evaluation.metrics.scorers import SCORERS, ScorerError, run, score
from mint.types import MintError

if TYPE_CHECKING:
    from mint.evaluation.metrics.classification import Floats

PAPER = ("cider_d", "rouge_l", "spice", "spider")
"""The paper's metrics."""
REPORTED = (*PAPER, "bleu_4", "meteor")
"""What an evaluation computes."""
CAPTION_METRICS = (*SCORERS, "spider")
"""All that there are."""
OF_CORPUS = ("bleu_4", "meteor")
"""Metrics that count over the whole corpus: their value is not the mean over the clips."""
SPICE_JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
NO_PACKAGE = "pycocoevalcap is not installed; `pip install mint-audio[metrics]`"
NO_JAVA = "Java is not installed; install a Java runtime (Debian: default-jre-headless)"
ONE_DOCUMENT = (
    "CIDEr-D weighs words by how rare they are among the clips, and all references are the same here; measure at least "
    "two clips with different captions"
)
TREEBANK = "Penn Treebank tokeniser"
REGULAR = "regular expression in place of the Penn Treebank tokeniser"
WORD = re.compile(r"[^\W_]+(?:[-/][^\W_]+)*|'[^\W\d_]+")
SECONDS = 600.0
"""Time limit of the tokeniser and of each scorer, on top of `SECONDS_EACH`."""
SECONDS_EACH = 2.0
"""Time limit for each caption and reference; SPICE, the slowest, needs about half a second."""


@dataclass(frozen=True)
class CaptionScore:
    """One metric over a split."""

    corpus: float
    per_clip: Floats
    """[N]; their mean is `corpus` where `is_mean`."""
    is_mean: bool
    """False for BLEU and METEOR, which count over the whole corpus."""


@dataclass(frozen=True)
class CaptionScores:
    """The scores that could be computed, and why the others could not."""

    scores: dict[str, CaptionScore] = field(default_factory=dict)
    not_computed: dict[str, str] = field(default_factory=dict)
    """Metric -> reason and cure."""
    tokenizer: str | None = None


def score_captions(
    generated: Sequence[str], references: Sequence[Sequence[str]], metrics: Sequence[str] = PAPER
) -> CaptionScores:
    """Compare generated captions with the references of the same clips.

    CIDEr-D weighs words by how rare they are among the references given, so its value belongs to this very split.

    Args:
        generated: one caption for each of N clips.
        references: the references of each clip, at least one.
        metrics: any of `cider_d`, `rouge_l`, `bleu_4`, `meteor`, `spice`, `spider`.

    Returns:
        The scores; a metric that cannot be computed, fails or does not end stands in `not_computed` with the reason.

    Raises:
        MintError: no clips, numbers that differ, a clip without reference, an unknown metric.
    """
    _check(generated, references, metrics)
    reasons = missing(metrics)
    wanted = [name for name in metrics if name not in reasons]
    if not wanted:
        return CaptionScores(not_computed=reasons)

    # All texts are tokenised in one run: starting Java takes longer than its work.
    flat = [*generated, *chain.from_iterable(references)]
    seconds = SECONDS + SECONDS_EACH * len(flat)
    tokens, tokenizer = _tokenize(flat, seconds)

    # The references follow the captions, those of one clip after those of another.
    ends = np.cumsum([len(generated), *map(len, references)]).tolist()
    targets = [tokens[first:last] for first, last in pairwise(ends)]

    # SPIDEr has no scorer of its own; its two parts are computed once, whoever asks for them.
    needed: dict[str, None] = {}
    for name in wanted:
        needed |= dict.fromkeys(_parts(name))
    scores: dict[str, CaptionScore] = {}
    for name in needed:
        try:
            scores[name] = _score(name, targets, tokens[: len(generated)], seconds)
        except ScorerError as error:
            reasons[name] = f"{name} failed: {error}"

    if "spider" in wanted:
        failed = [reasons[name] for name in _parts("spider") if name not in scores]
        if failed:
            reasons["spider"] = failed[0]
        else:
            per_clip = (scores["cider_d"].per_clip + scores["spice"].per_clip) / 2
            scores["spider"] = CaptionScore(float(per_clip.mean()), per_clip, is_mean=True)

    # In the order asked for, without the parts of SPIDEr that nobody asked for.
    return CaptionScores(_only(metrics, scores), _only(metrics, reasons), tokenizer)


def _only(names: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of some names, in their order; a name without a value is left out."""
    return {name: values[name] for name in names if name in values}


def missing(metrics: Sequence[str]) -> dict[str, str]:
    """Return why each of the metrics that this machine cannot compute is missing, with the cure."""
    reasons = {}
    for name in metrics:
        reason = _missing(name)
        if reason is not None:
            reasons[name] = reason
    return reasons


def _check(generated: Sequence[str], references: Sequence[Sequence[str]], metrics: Sequence[str]) -> None:
    for name in metrics:
        if name not in CAPTION_METRICS:
            raise MintError(f"no caption metric {name!r}; choose from {', '.join(CAPTION_METRICS)}")
    if not generated:
        raise MintError("the split is empty: no captions to measure; check the manifest's split names")
    if len(generated) != len(references):
        raise MintError(f"{len(generated)} generated captions but references of {len(references)} clips")
    for clip, several in enumerate(references):
        if not several:
            raise MintError(f"clip {clip} has no reference caption; leave clips without captions out")


def _parts(name: str) -> tuple[str, ...]:
    """Return the scorers that a metric needs."""
    return ("cider_d", "spice") if name == "spider" else (name,)


def _missing(name: str) -> str | None:
    """Return why a metric cannot be computed on this machine, or None."""
    if importlib.util.find_spec("pycocoevalcap") is None:
        return NO_PACKAGE
    if name in ("meteor", "spice", "spider") and shutil.which("java") is None:
        return NO_JAVA
    if name in ("spice", "spider"):
        folder = _folder("spice")
        lacking = [jar for jar in SPICE_JARS if not (folder / "lib" / jar).is_file()]
        if lacking:
            return (
                f"SPICE needs {' and '.join(lacking)} in pycocoevalcap/spice/lib; with a network, "
                '`python -c "from pycocoevalcap.spice.spice import Spice; Spice()"` puts them there'
            )
        if not os.access(folder, os.W_OK):
            return "SPICE writes into pycocoevalcap/spice, which is read-only here; install it where it can be written"
    return None


def _score(name: str, references: Sequence[Sequence[str]], generated: Sequence[str], seconds: float) -> CaptionScore:
    """Score tokenised captions.

    Raises:
        ScorerError: the metric does not exist for these captions, or its scorer gave no result.
    """
    # Words are weighed by how many clips have them; with one document every weight is log 1 = 0.
    if name == "cider_d" and len({tuple(sorted(several)) for several in references}) < 2:
        raise ScorerError(ONE_DOCUMENT)

    # The scorers are foreign code: what they give is checked before it is believed.
    corpus, values = score(name, references, generated, seconds)
    per_clip = np.asarray(values, dtype=np.float64)
    if per_clip.shape != (len(generated),):
        raise ScorerError(f"it gave {per_clip.size} values for {len(generated)} clips")
    if not (np.isfinite(corpus) and np.isfinite(per_clip).all()):
        raise ScorerError(f"{np.count_nonzero(~np.isfinite(per_clip))} of its {len(per_clip)} values are no numbers")
    return CaptionScore(corpus, per_clip, is_mean=name not in OF_CORPUS)


def _folder(package: str) -> Path:
    """Return the folder of a package in pycocoevalcap, which need not be imported."""
    spec = importlib.util.find_spec("pycocoevalcap")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / package


def _tokenize(captions: Sequence[str], seconds: float) -> tuple[list[str], str]:
    """Return the tokens of each caption, joined by spaces, and the name of what has found them."""
    if shutil.which("java") is None:
        return _regular_tokens(captions), f"{REGULAR} (no Java on this machine)"
    try:
        return _treebank_tokens(captions, seconds), TREEBANK
    except ScorerError as error:
        return _regular_tokens(captions), f"{REGULAR} (Java failed: {error})"


def _treebank_tokens(captions: Sequence[str], seconds: float = SECONDS) -> list[str]:
    module = importlib.import_module("pycocoevalcap.tokenizer.ptbtokenizer")
    jar = _folder("tokenizer") / module.STANFORD_CORENLP_3_4_1_JAR
    command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]

    # One line each, whatever they hold.
    lines = "".join(f"{' '.join(caption.split())}\n" for caption in captions)
    tokens = run(command, lines.encode(errors="replace"), seconds).decode(errors="replace").splitlines()
    if len(tokens) != len(captions):
        raise ScorerError(f"the tokeniser gave {len(tokens)} lines for {len(captions)} captions")

    # As the reference implementation does: punctuation is no word.
    cleaned = []
    for line in tokens:
        cleaned.append(" ".join(word for word in line.split() if word not in module.PUNCTUATIONS))
    return cleaned


def _regular_tokens(captions: Sequence[str]) -> list[str]:
    return [" ".join(WORD.findall(caption.lower())) for caption in captions]
