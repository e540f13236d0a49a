"""Caption metrics: the community's numbers where its code is installed, a named reason where it is not."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mint.evaluation.metrics import captions as caption_metrics
from mint.evaluation.metrics import scorers
from mint.evaluation.metrics.captions import REGULAR, REPORTED, score_captions
from mint.evaluation.metrics.scorers import ScorerError
from mint.types import MintError

GENERATED = ["A flute plays a soft, low note.", "Rain\nfalls on a roof?", "", "A dog barks and a car passes"]
REFERENCES = [
    ["A flute plays a low note", "A soft flute"],
    ["Rain falls on the roof of a house"],
    ["Birds sing", "Some birds sing in a wood"],
    ["A dog barks", "A car passes a barking dog", "The dog's bark is loud"],
]

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("pycocoevalcap") is None, reason="pycocoevalcap is an optional extra"
)
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="Java is optional")


def without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)


def java(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Put a script in the place of Java."""
    program = folder / "java"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def has_ended(pid: int) -> bool:
    """Whether a process ends within a moment; one that was killed, and that nobody has waited for, has ended."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.05)
    return False


def naive_cider_d(generated: list[str], references: list[list[str]]) -> list[float]:
    """CIDEr-D (Vedantam et al. 2015, the variant with clipping and a length penalty) written plainly."""
    from collections import Counter

    def grams(text: str, n: int) -> Counter[tuple[str, ...]]:
        words = text.split()
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    totals = np.zeros(len(generated))
    for n in (1, 2, 3, 4):
        seen = Counter(gram for several in references for gram in set().union(*(grams(one, n) for one in several)))

        def vector(text: str, n: int = n, seen: Any = seen) -> dict[Any, float]:
            return {
                gram: count * (np.log(len(references)) - np.log(max(1, seen[gram])))
                for gram, count in grams(text, n).items()
            }

        for clip, (candidate, several) in enumerate(zip(generated, references, strict=True)):
            one, values = vector(candidate), []
            for reference in several:
                other = vector(reference)
                dot = sum(min(value, other.get(gram, 0)) * other.get(gram, 0) for gram, value in one.items())
                norm = np.sqrt(sum(v * v for v in one.values()) * sum(v * v for v in other.values()))
                # like the community's code, lengths are counted in bigrams
                gap = sum(grams(candidate, 2).values()) - sum(grams(reference, 2).values())
                values.append((dot / norm if norm else 0.0) * np.exp(-(gap**2) / 72))
            totals[clip] += 10 * np.mean(values) / 4
    return totals.tolist()


@needs_package
def test_cider_d_equals_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    without_java(monkeypatch)
    found = score_captions(GENERATED, REFERENCES, ("cider_d",)).scores["cider_d"]
    tokens = caption_metrics._regular_tokens
    expected = naive_cider_d(tokens(GENERATED), [tokens(several) for several in REFERENCES])
    np.testing.assert_allclose(found.per_clip, expected, atol=1e-9)
    assert found.corpus == pytest.approx(np.mean(expected))


@needs_package
@needs_java
@pytest.mark.parametrize(
    ("metric", "module", "scorer"),
    [
        ("cider_d", "cider.cider", "Cider"),
        ("rouge_l", "rouge.rouge", "Rouge"),
        ("bleu_4", "bleu.bleu", "Bleu"),
        pytest.param("meteor", "meteor.meteor", "Meteor", marks=pytest.mark.slow),
    ],
)
def test_scores_are_those_of_the_communitys_own_pipeline(metric: str, module: str, scorer: str) -> None:
    """The package as its own `COCOEvalCap` calls it: its tokeniser, then its scorer."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    flat = [caption.replace("\n", " ") for caption in GENERATED]
    targets = PTBTokenizer().tokenize({
        clip: [{"caption": caption} for caption in several] for clip, several in enumerate(REFERENCES)
    })  # fmt: skip
    candidates = PTBTokenizer().tokenize({clip: [{"caption": caption}] for clip, caption in enumerate(flat)})
    build = getattr(importlib.import_module(f"pycocoevalcap.{module}"), scorer)
    corpus, per_clip = build().compute_score(targets, candidates)
    if metric == "bleu_4":
        corpus, per_clip = corpus[3], per_clip[3]
    found = score_captions(GENERATED, REFERENCES, (metric,)).scores[metric]
    assert found.corpus == pytest.approx(corpus, abs=1e-12)
    np.testing.assert_allclose(found.per_clip, per_clip, atol=1e-12)


@needs_package
def test_a_copy_of_the_reference_is_perfect(monkeypatch: pytest.MonkeyPatch) -> None:
    without_java(monkeypatch)
    found = score_captions([several[0] for several in REFERENCES], REFERENCES, ("rouge_l", "bleu_4")).scores
    np.testing.assert_allclose(found["rouge_l"].per_clip, 1.0)
    assert found["rouge_l"].is_mean
    assert not found["bleu_4"].is_mean


@needs_package
def test_what_needs_java_is_named_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    without_java(monkeypatch)
    found = score_captions(GENERATED, REFERENCES, ("cider_d", "rouge_l", "meteor", "spice", "spider"))
    assert set(found.scores) == {"cider_d", "rouge_l"}
    assert set(found.not_computed) == {"meteor", "spice", "spider"}
    assert "install a Java runtime" in found.not_computed["meteor"]
    assert found.tokenizer == f"{REGULAR} (no Java on this machine)"
    assert found.scores["rouge_l"].per_clip.shape == (4,)
    assert found.scores["rouge_l"].per_clip[2] == 0


def test_without_the_package_nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    found = score_captions(GENERATED, REFERENCES)
    assert found.scores == {}
    assert set(found.not_computed) == {"cider_d", "rouge_l", "spice", "spider"}
    assert all("pip install mint-audio[metrics]" in reason for reason in found.not_computed.values())


@needs_package
@needs_java
def test_treebank_tokens_equal_the_package_and_the_fallback() -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    plain = [
        "A Dog barks; it is loud!",
        "rain-soaked roof, 2 cars",
        "The dog's bark",
        "",
        "a\u2028b \r\n c",
        "soft flüte",
    ]
    flat = plain + [caption for several in REFERENCES for caption in several]
    ours = caption_metrics._treebank_tokens(flat)
    joined = {place: [{"caption": " ".join(caption.split())}] for place, caption in enumerate(flat)}
    assert ours == [tokens[0] for tokens in PTBTokenizer().tokenize(joined).values()]
    assert ours == caption_metrics._regular_tokens(flat)


@needs_package
@needs_java
def test_spice_without_its_jars_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_metrics, "SPICE_JARS", ("absent.jar",))
    found = score_captions(GENERATED, REFERENCES, ("rouge_l", "spider"))
    assert set(found.scores) == {"rouge_l"}
    assert "absent.jar" in found.not_computed["spider"]


def instead_of_scorers(monkeypatch: pytest.MonkeyPatch, score: Any) -> None:
    """Put a function of the name and of the captions in the place of the scorers, the package and Java."""
    without_java(monkeypatch)
    monkeypatch.setattr(caption_metrics, "_missing", lambda name: None)
    monkeypatch.setattr(caption_metrics, "score", lambda name, references, generated, seconds: score(name, generated))


def test_spider_is_the_mean_of_its_two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"cider_d": [1.0, 0.5], "spice": [0.2, 0.1]}
    instead_of_scorers(monkeypatch, lambda name, _: (float(np.mean(parts[name])), parts[name]))
    found = score_captions(["a", "b"], [["a"], ["b"]], ("spider",)).scores
    assert list(found) == ["spider"]
    np.testing.assert_allclose(found["spider"].per_clip, [0.6, 0.3])
    assert found["spider"].corpus == pytest.approx(0.45)


def test_a_scorer_that_fails_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def score(name: str, generated: list[str]) -> tuple[float, list[float]]:
        if name == "meteor":
            raise ScorerError("could not convert string to float: '0,4455'")
        if name == "spice":
            return float("nan"), [0.5, float("nan")]
        if name == "bleu_4":
            return 0.5, [0.5]
        return 0.5, [0.25, 0.75]

    instead_of_scorers(monkeypatch, score)
    found = score_captions(["a", "b"], [["a"], ["b"]], REPORTED)
    assert set(found.scores) == {"cider_d", "rouge_l"}
    assert found.not_computed == {
        "meteor": "meteor failed: could not convert string to float: '0,4455'",
        "spice": "spice failed: 1 of its 2 values are no numbers",
        "spider": "spice failed: 1 of its 2 values are no numbers",
        "bleu_4": "bleu_4 failed: it gave 1 values for 2 clips",
    }


@pytest.mark.parametrize(
    "references", [[["a dog barks"]], [["a dog barks", "a bark"], ["a bark", "A dog barks."]]], ids=["one", "same"]
)
def test_words_that_all_clips_share_have_no_cider_d(monkeypatch: pytest.MonkeyPatch, references: Any) -> None:
    instead_of_scorers(monkeypatch, lambda name, generated: (0.5, [0.5] * len(generated)))
    found = score_captions(["a dog barks"] * len(references), references, REPORTED)
    assert set(found.scores) == {"rouge_l", "spice", "bleu_4", "meteor"}
    assert set(found.not_computed) == {"cider_d", "spider"}
    assert "at least two clips with different captions" in found.not_computed["cider_d"]
    assert "at least two clips with different captions" in found.not_computed["spider"]


@needs_package
def test_a_broken_java_costs_what_needs_it_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java(monkeypatch, tmp_path, "echo 'no JVM here' >&2; exit 3")
    monkeypatch.setattr(caption_metrics, "SECONDS", 30.0)
    found = score_captions(GENERATED, REFERENCES, ("rouge_l", "meteor"))
    assert found.tokenizer == f"{REGULAR} (Java failed: no JVM here)"
    assert set(found.scores) == {"rouge_l"}
    assert found.not_computed["meteor"].startswith("meteor failed: ")
    assert "did not end" not in found.not_computed["meteor"]


@needs_package
def test_java_that_hangs_is_killed_with_all_that_it_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java(monkeypatch, tmp_path, f"sleep 1000 & echo $! >> {tmp_path / 'pids'}; wait")
    monkeypatch.setattr(caption_metrics, "SECONDS", 1.5)
    monkeypatch.setattr(caption_metrics, "SECONDS_EACH", 0.0)
    found = score_captions(GENERATED, REFERENCES, ("meteor",))
    assert "did not end within 2 seconds" in found.not_computed["meteor"]
    assert "did not end within 2 seconds" in (found.tokenizer or "")
    started = (tmp_path / "pids").read_text().split()
    assert started
    for pid in started:
        assert has_ended(int(pid))


@pytest.mark.parametrize("variable", ["JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS"])
def test_java_is_told_to_speak_english_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str) -> None:
    monkeypatch.setenv(variable, "-Duser.language=it -Duser.country=IT")
    java(monkeypatch, tmp_path, 'echo "$JDK_JAVA_OPTIONS"; echo "$_JAVA_OPTIONS"')
    options, stronger = scorers.run(["java"], b"", 30.0).decode().splitlines()
    assert options.endswith(" ".join(scorers.JAVA_OPTIONS))
    assert "-Duser.language=en -Duser.country=US" in options
    assert os.environ[variable] == "-Duser.language=it -Duser.country=IT"
    if variable == "_JAVA_OPTIONS":
        assert stronger.endswith("-Duser.language=en -Duser.country=US -Dfile.encoding=UTF-8")
    else:
        assert stronger == ""


@needs_package
@needs_java
@pytest.mark.slow
@pytest.mark.parametrize("variable", ["JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS"])
def test_meteor_has_its_number_under_a_decimal_comma(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    plain = score_captions(GENERATED, REFERENCES, ("meteor",))
    monkeypatch.setenv(variable, "-Duser.language=it -Duser.country=IT")
    found = score_captions(GENERATED, REFERENCES, ("meteor",))
    assert found.not_computed == {}
    assert found.scores["meteor"].corpus == plain.scores["meteor"].corpus


@needs_package
@needs_java
@pytest.mark.slow
@pytest.mark.parametrize("words", [1000, 5000])
def test_a_long_reference_costs_meteor_at_most(monkeypatch: pytest.MonkeyPatch, words: int) -> None:
    monkeypatch.setattr(caption_metrics, "SECONDS", 20.0)
    long = " ".join(f"word{index % 7}" for index in range(words))
    found = score_captions([long, "a dog"], [[long], ["a dog barks"]], ("cider_d", "bleu_4", "meteor"))
    assert {"cider_d", "bleu_4"} <= set(found.scores)
    assert ("meteor" in found.scores) != ("meteor" in found.not_computed)


@pytest.mark.parametrize(
    ("generated", "references", "metrics", "words"),
    [
        ([], [], ("rouge_l",), "split is empty"),
        (["a"], [], ("rouge_l",), "1 generated captions but references of 0"),
        (["a"], [[]], ("rouge_l",), "clip 0 has no reference"),
        (["a"], [["a"]], ("bleu",), "no caption metric 'bleu'"),
    ],
)
def test_mistakes_are_named(generated: list[str], references: Any, metrics: Any, words: str) -> None:
    with pytest.raises(MintError, match=words):
        score_captions(generated, references, metrics)


def test_package_folder_is_found_without_importing(tmp_path: Path) -> None:
    if importlib.util.find_spec("pycocoevalcap") is None:
        pytest.skip("pycocoevalcap is an optional extra")
    assert (caption_metrics._folder("spice") / "spice.py").is_file()
