"""Caption metrics: the community's numbers where its code is installed, a named reason where it is not."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mint.evaluation.metrics import captions as caption_metrics
from mint.evaluation.metrics.captions import REGULAR, CaptionScore, names_label, score_captions
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
        ("meteor", "meteor.meteor", "Meteor"),
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
    assert found.tokenizer == REGULAR
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


@needs_package
def test_spider_is_the_mean_of_its_two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"cider_d": np.array([1.0, 0.5]), "spice": np.array([0.2, 0.1])}
    without_java(monkeypatch)
    monkeypatch.setattr(caption_metrics, "_missing", lambda name: None)
    monkeypatch.setattr(
        caption_metrics, "_score", lambda name, *_: CaptionScore(float(parts[name].mean()), parts[name], True)
    )
    found = score_captions(["a", "b"], [["a"], ["b"]], ("spider",)).scores
    assert list(found) == ["spider"]
    np.testing.assert_allclose(found["spider"].per_clip, [0.6, 0.3])
    assert found["spider"].corpus == pytest.approx(0.45)


def test_java_options_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("JDK_JAVA_OPTIONS", "-Xmx1G")
    with caption_metrics._open_java():
        assert os.environ["JDK_JAVA_OPTIONS"].startswith("-Xmx1G --add-opens=java.base/java.lang=ALL-UNNAMED")
    assert os.environ["JDK_JAVA_OPTIONS"] == "-Xmx1G"
    monkeypatch.delenv("JDK_JAVA_OPTIONS")
    with caption_metrics._open_java():
        assert os.environ["JDK_JAVA_OPTIONS"].startswith("--add-opens")
    assert "JDK_JAVA_OPTIONS" not in os.environ


@pytest.mark.parametrize(
    ("caption", "label", "named"),
    [
        ("A Flute plays", "flute", True),
        ("Two flutes.", "flute", True),
        ("a string", "strings", True),
        ("car batteries", "battery", True),
        ("crashes", "crash", True),
        ("basso continuo", "bass", False),
        ("a brassy tone", "brass", False),
        ("the bass-drum", "bass", True),
        ("an electric  guitar", "electric_guitar", True),
        ("an electric organ and a guitar", "electric guitar", False),
        ("c++ (loud)", "c++", True),
        ("", "flute", False),
    ],
)
def test_names_label(caption: str, label: str, named: bool) -> None:
    assert names_label(caption, label) is named


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
