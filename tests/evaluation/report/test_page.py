"""The report is one well-formed page that needs nothing from outside and trusts no text that it is given."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mint.data.features.encode import Skipped
from mint.evaluation.metrics.calibration import calibrate
from mint.evaluation.records import Confusion, SimilarityMap
from mint.evaluation.report import page as report
from mint.evaluation.report.page import (
    AttentionMap,
    Curve,
    ReportData,
    Sample,
    write_report,
)
from mint.evaluation.results.file import Results, Row
from mint.evaluation.settings import Decoding, Settings
from mint.types import Clip, MintError

VOID = {"meta", "link", "img", "br", "input", "hr"}
HOSTILE = """<script>alert('x')</script>"><img src=x onerror="alert(1)"> {{ 7*7 }} &amp;"""
TONE = Clip(np.sin(np.arange(44_100) / 20).astype(np.float32) * 0.5, 44_100)


class Page(HTMLParser):
    """Tags with their attributes, checked for balance, and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: Any) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def full(text: str = "plain") -> ReportData:
    """A report with every section, `text` standing everywhere that a text can stand."""
    rows = (
        Row(text, "test", "accuracy", "stage2", 0.8125, 0.75, 0.87, 160),
        Row(text, "test", "accuracy", "chance", 0.25, 0.25, 0.25, 160),
        Row("captioning", text, "cider_d", text, 1.2, None, None, 20),
    )
    sample = Sample(text, TONE, text, text, text, [text, text], text)
    return ReportData(
        title=text,
        results=Results(rows, 3725.0, 3 * 2**30, text, text, 7, {}),
        date=datetime(2026, 3, 1, 9, 5),
        machine=text,
        curves=[Curve(text, [{"step": 1, "loss": 3.0, text: 1.0}, {"step": 9, "loss": 0.5}])],
        confusions=[Confusion(text, [text, "b"], [[3, 2], [0, 4]])],
        similarities=[SimilarityMap(text, [text, "second"], [text, text, "last"], np.eye(2, 3), [0, 1, 1])],
        calibrations={text: calibrate([[3.0, 0.0], [0.5, 0.2]], [0, 1])},
        attentions=[AttentionMap(text, TONE, np.eye(2, 4), 0.25, text)],
        samples=[sample],
        mistakes=[replace(sample, truth="another"), Sample("silent", None)],
        skipped=[Skipped(text, text, text)],
        not_computed={text: text},
        method=[text],
        commands=[text],
    )


def written(folder: Path, data: ReportData) -> tuple[str, Page]:
    path = folder / "new" / "report.html"
    write_report(path, data)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_nothing_is_fetched(tmp_path: Path) -> None:
    text, page = written(tmp_path, full())
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert "url(" not in text
    links = [attributes[key] for _, attributes in page.tags for key in ("src", "href") if key in attributes]
    assert len(links) > 5
    assert all(link is not None and re.match(r"#\w|data:(audio/flac|image/png);base64,", link) for link in links)
    policy = next(one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    text, page = written(tmp_path, full(HOSTILE))
    plain = Page((tmp_path / "new" / "report.html").read_text(encoding="utf-8"))
    assert len(page.all("script")) == 1
    assert page.all("img") == []
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert "<script>alert" not in text
    assert HOSTILE in " ".join(plain.text)
    _, ordinary = written(tmp_path / "other", full())
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in ordinary.tags]


def test_numbers_are_those_of_the_results(tmp_path: Path) -> None:
    _, page = written(tmp_path, full())
    for words in ("81.2 [75.0, 87.0]", "25.0", "1.200", "1 March 2026, 09:05", "1 h 2 min", "3.00 GiB"):
        assert words in page.words
    assert "loss: 3 → 0.5" in page.words
    assert "7 of 9 clips are right" in page.words
    assert "learning_rate" not in page.words


def test_links_inside_the_page_lead_somewhere(tmp_path: Path) -> None:
    _, page = written(tmp_path, full())
    places = {attributes.get("id") for _, attributes in page.tags}
    assert {str(link["href"])[1:] for link in page.all("a")} <= places
    named = {attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes}
    assert named <= places


def test_it_can_be_read_without_eyes_and_mouse(tmp_path: Path) -> None:
    _, page = written(tmp_path, full())
    assert page.all("html") == [{"lang": "en"}]
    assert all("aria-label" in one or one.get("aria-hidden") == "true" for one in page.all("svg"))
    assert all(one.get("aria-label") and "controls" in one for one in page.all("audio"))
    assert all("scope" in one or one.get("class") == "side" for one in page.all("th"))
    scrolling = [one for _, one in page.tags if "scroll" in str(one.get("class", "")).split()]
    assert scrolling
    assert all(one.get("tabindex") == "0" and one.get("aria-label") for one in scrolling)


def test_players_hold_the_audio(tmp_path: Path) -> None:
    _, page = written(tmp_path, full())
    sources = [str(one["src"]) for one in page.all("audio")]
    assert len(sources) == 3  # the clip without audio has none
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sources[0].split(",")[1])))
    assert rate == 16_000
    assert samples.shape == (16_000,)
    expected = 0.5 * np.sin(np.arange(16_000) * 44_100 / 16_000 / 20)
    np.testing.assert_allclose(samples[500:-500], expected[500:-500], atol=2e-3)


def test_size_is_bounded(tmp_path: Path) -> None:
    noise = Clip(np.random.default_rng(0).uniform(-1, 1, 30 * 48_000).astype(np.float32), 48_000)
    samples = [Sample(str(place), noise) for place in range(50)]
    text, page = written(tmp_path, replace(full(), samples=samples, mistakes=samples))
    assert len(page.all("audio")) == 2 * report.MOST_PLAYERS + 1
    assert len(text) < 10_000_000
    assert f"{report.MOST_PLAYERS} of 50 are shown." in page.words


def test_metrics_that_lack_the_same_are_named_together_and_choices_are_said(tmp_path: Path) -> None:
    settings = Settings(decoding=Decoding(beams=3)).record()
    data = full()
    reasons = {"spice": "no jar", "meteor": "no Java", "spider": "no jar"}
    page, _ = written(
        tmp_path, replace(data, results=replace(data.results, extra={"settings": settings}), not_computed=reasons)
    )
    assert "<strong>SPICE, SPIDEr</strong> not computed: no jar" in page
    assert "<strong>METEOR</strong> not computed: no Java" in page
    assert "Chosen: captions by beam search with 3 beams, 30 tokens at most." in page


def test_many_classes_are_listed_not_drawn(tmp_path: Path) -> None:
    labels = [f"label {place}" for place in range(500)]
    counts = np.eye(500, dtype=int) * 5
    counts[7, 400] = 3
    text, page = written(tmp_path, replace(full(), confusions=[Confusion("many", labels, counts)]))
    assert "label 7 label 400 3" in page.words
    assert len(text) < 200_000


def test_an_empty_run_has_a_report(tmp_path: Path) -> None:
    empty = ReportData("Nothing", Results((), 0.2, None, "r", None, 0, {}), datetime(2026, 1, 1), "a machine")
    _, page = written(tmp_path, replace(empty, curves=[Curve("Stage 1", [])]))
    for words in ("No results.", "No losses were logged.", "not a checkout", "not measured"):
        assert words in page.words


def test_predictions_are_marked(tmp_path: Path) -> None:
    samples = [Sample("one", None, "a", "a"), Sample("two", None, "a", "b"), Sample("three", None, "a")]
    _, page = written(tmp_path, replace(full(), samples=samples, mistakes=[]))
    assert "✓ a True label a" in page.words
    assert "✗ a True label b" in page.words
    assert page.words.count("✓") == 1
    assert page.words.count("✗") == 1


@pytest.mark.parametrize(
    ("leakage", "shown", "warned"),
    [
        (None, "not recorded", False),
        ({"not_computed": "the manifest is gone"}, "not computed (the manifest is gone)", False),
        ({"splits": [{"by_id": 0, "by_file": 2, "by_caption": 1}]}, "by recording 0, by file 2, by caption 1", True),
        ({"splits": [{"by_id": 0, "by_file": 0, "by_caption": 9}]}, "by recording 0, by file 0, by caption 9", False),
    ],
)
def test_a_test_set_that_shares_clips_with_training_is_reported(
    tmp_path: Path, leakage: Any, shown: str, warned: bool
) -> None:
    data = full()
    _, page = written(tmp_path, replace(data, results=replace(data.results, extra={"leakage": leakage})))
    assert f"Held-out clips also trained on {shown} " in page.words
    assert ("The test set shares clips with training" in page.words) is warned


def test_calibration_and_attention_are_shown(tmp_path: Path) -> None:
    _, page = written(tmp_path, full())
    expected = 100 * calibrate([[3.0, 0.0], [0.5, 0.2]], [0, 1]).error
    assert f"Expected calibration error {expected:.1f} %, 2 clips." in page.words
    assert len(page.all("image")) == 2
    _, plain = written(tmp_path / "other", replace(full(), calibrations={}, attentions=[]))
    assert "Where the queries look" not in plain.words
    assert "calibration error" not in plain.words


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("confusions", [Confusion("c", ["a"], [[1, 2]])], r"'c' has shape \(1, 2\) for 1 labels"),
        ("similarities", [SimilarityMap("s", ["a"], ["b"], [[1.0]], [])], "'s' has shape .* 0 owners"),
    ],
)
def test_matrices_must_fit(tmp_path: Path, field: str, value: Any, words: str) -> None:
    with pytest.raises(MintError, match=words):
        write_report(tmp_path / "report.html", replace(full(), **{field: value}))
    assert list(tmp_path.iterdir()) == []
