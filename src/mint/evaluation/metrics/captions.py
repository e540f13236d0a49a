"""Caption metrics by the community's own implementation (paper, section 4.2 and Table 4).

CIDEr-D, ROUGE-L, BLEU-4, METEOR and SPICE come from pycocoevalcap, whose code has been frozen since 2020 and gave the
published numbers; SPIDEr is the mean of CIDEr-D and SPICE, clip by clip. What a machine lacks is named with its cure
and leaves no number: no metric ever stands in for another.

Two departures, neither of which changes a number: the Penn Treebank tokeniser is pycocoevalcap's jar, but called
without the temporary file that it writes into its own folder (an installation may be read-only); and without Java a
regular expression takes its place, which gives the same tokens on all but two of Clotho's 29,645 captions; the result
says so. SPICE's Java is opened for its reflective library, without which it stops on Java 17.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mint.types import MintError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mint.evaluation.metrics.classification import Floats

PAPER = ("cider_d", "rouge_l", "spice", "spider")
"""The paper's metrics."""
REPORTED = (*PAPER, "bleu_4", "meteor")
"""What an evaluation computes."""
SCORERS = {
    "cider_d": ("cider.cider", "Cider"),
    "rouge_l": ("rouge.rouge", "Rouge"),
    "bleu_4": ("bleu.bleu", "Bleu"),
    "meteor": ("meteor.meteor", "Meteor"),
    "spice": ("spice.spice", "Spice"),
}
"""Where pycocoevalcap has them; `spider` is computed from two."""
SPICE_JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
SPICE_PACKAGES = ("lang", "math", "net", "text", "util", "util.concurrent")
NO_PACKAGE = "pycocoevalcap is not installed; `pip install mint-audio[metrics]`"
NO_JAVA = "Java is not installed; install a Java runtime (Debian: default-jre-headless)"
TREEBANK = "Penn Treebank tokeniser"
REGULAR = "regular expression in place of the Penn Treebank tokeniser (no Java on this machine)"
WORD = re.compile(r"[^\W_]+(?:[-/][^\W_]+)*|'[^\W\d_]+")


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
    """What could be computed, and why the rest could not."""

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

    Raises:
        MintError: no clips, numbers that differ, a clip without reference, an unknown metric.
    """
    _check(generated, references, metrics)
    lacking = missing(metrics)
    wanted = [name for name in metrics if name not in lacking]
    if not wanted:
        return CaptionScores(not_computed=lacking)
    tokenize, tokenizer = (_treebank_tokens, TREEBANK) if shutil.which("java") else (_regular_tokens, REGULAR)
    flat = tokenize([*generated, *(reference for several in references for reference in several)])
    hypotheses = {clip: [flat[clip]] for clip in range(len(generated))}
    ends = np.cumsum([len(generated), *map(len, references)])
    targets = {clip: flat[ends[clip] : ends[clip + 1]] for clip in range(len(references))}
    parts = list(dict.fromkeys(part for name in wanted for part in _parts(name)))
    scores = {part: _score(part, targets, hypotheses) for part in parts}
    if "spider" in wanted:
        per_clip = (scores["cider_d"].per_clip + scores["spice"].per_clip) / 2
        scores["spider"] = CaptionScore(float(per_clip.mean()), per_clip, is_mean=True)
    return CaptionScores({name: scores[name] for name in wanted}, lacking, tokenizer)


def missing(metrics: Sequence[str]) -> dict[str, str]:
    """Return why each of the metrics that this machine cannot compute is missing, with the cure."""
    reasons = {name: _missing(name) for name in metrics}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def names_label(caption: str, label: str) -> bool:
    """Whether a caption names a label: whole words, in any case, singular or plural, `_` and `-` read as spaces."""
    *first, last = re.split(r"[\s_-]+", label.strip().lower())
    if not last:
        raise MintError("the label is empty; it cannot be looked for in a caption")
    forms = {last, last + "s", last + "es", re.sub(r"(?<=[^aeiou])y$", "ies", last)}
    if last.endswith("s") and not last.endswith("ss"):
        forms.add(last[:-1])
    words = [*map(re.escape, first), f"(?:{'|'.join(map(re.escape, sorted(forms)))})"]
    pattern = r"(?<!\w)" + r"[\s_-]+".join(words) + r"(?!\w)"
    return re.search(pattern, caption.lower()) is not None


def _check(generated: Sequence[str], references: Sequence[Sequence[str]], metrics: Sequence[str]) -> None:
    unknown = [name for name in metrics if name not in (*SCORERS, "spider")]
    if unknown:
        raise MintError(f"no caption metric {unknown[0]!r}; choose from {', '.join((*SCORERS, 'spider'))}")
    if not generated:
        raise MintError("the split is empty: no captions to measure; check the manifest's split names")
    if len(generated) != len(references):
        raise MintError(f"{len(generated)} generated captions but references of {len(references)} clips")
    bare = [clip for clip, several in enumerate(references) if not several]
    if bare:
        raise MintError(f"clip {bare[0]} has no reference caption; leave clips without captions out")


def _parts(name: str) -> tuple[str, ...]:
    return ("cider_d", "spice") if name == "spider" else (name,)


def _missing(name: str) -> str | None:
    """Why a metric cannot be computed here, or None."""
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


def _score(name: str, references: dict[int, list[str]], hypotheses: dict[int, list[str]]) -> CaptionScore:
    module, scorer = SCORERS[name]
    with _open_java() if name == "spice" else nullcontext():
        build: Callable[[], Any] = getattr(importlib.import_module(f"pycocoevalcap.{module}"), scorer)
        options = {"verbose": 0} if name == "bleu_4" else {}
        corpus, per_clip = build().compute_score(references, hypotheses, **options)
    if name == "bleu_4":
        corpus, per_clip = corpus[3], per_clip[3]
    if name == "spice":
        per_clip = [clip["All"]["f"] for clip in per_clip]
    return CaptionScore(float(corpus), np.asarray(per_clip, dtype=np.float64), is_mean=name not in ("bleu_4", "meteor"))


def _folder(part: str) -> Path:
    spec = importlib.util.find_spec("pycocoevalcap")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / part


def _treebank_tokens(captions: Sequence[str]) -> list[str]:
    module = importlib.import_module("pycocoevalcap.tokenizer.ptbtokenizer")
    jar = _folder("tokenizer") / module.STANFORD_CORENLP_3_4_1_JAR
    command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    lines = "".join(f"{' '.join(caption.split())}\n" for caption in captions)  # one line each, whatever they hold
    answer = subprocess.run(command, input=lines.encode(), capture_output=True, check=False)
    tokens = answer.stdout.decode().splitlines()
    if answer.returncode or len(tokens) != len(captions):
        reason = (answer.stderr.decode().strip().splitlines() or [f"{len(tokens)} lines for {len(captions)} captions"])[
            -1
        ]
        raise MintError(f"the Penn Treebank tokeniser failed ({reason}); check that `java -version` works")
    return [" ".join(word for word in line.split() if word not in module.PUNCTUATIONS) for line in tokens]


def _regular_tokens(captions: Sequence[str]) -> list[str]:
    return [" ".join(WORD.findall(caption.lower())) for caption in captions]


@contextmanager
def _open_java() -> Iterator[None]:
    opened = " ".join(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in SPICE_PACKAGES)
    before = os.environ.get("JDK_JAVA_OPTIONS")
    os.environ["JDK_JAVA_OPTIONS"] = f"{before} {opened}" if before else opened
    try:
        yield
    finally:
        if before is None:
            del os.environ["JDK_JAVA_OPTIONS"]
        else:
            os.environ["JDK_JAVA_OPTIONS"] = before
