"""The verbs that use a finished run, over a stand-in for `mint.inference`."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mint.cli import main
from mint.types import MintError


class StubMint:
    """Answers from the file's name; refuses a file whose name begins with `bad`."""

    calls: list[tuple[str, Any]]

    def __init__(self, folder: str) -> None:
        self.folder = folder

    @classmethod
    def from_pretrained(cls, folder: str) -> StubMint:
        if folder == "nowhere":
            raise MintError("'nowhere' holds no trained model; train one with `mint quickstart`")
        return cls(folder)

    def check(self, audio: list[str]) -> list[str]:
        for path in audio:
            if Path(path).name.startswith("bad"):
                raise MintError(f"{path} holds no samples; leave it out")
            if Path(path).name.startswith("missing"):
                raise FileNotFoundError(2, "No such file or directory", path)
            if self.folder == "stage1":
                raise MintError("the run has no language model; use stage 2")
        return [Path(path).stem for path in audio]

    def caption(self, audio: list[str], **options: Any) -> list[str]:
        self.calls.append(("caption", options))
        return [f"the sound\nof {stem}" for stem in self.check(audio)]

    def ask(self, audio: list[str], prompt: str, **options: Any) -> list[str]:
        self.calls.append(("ask", options))
        return [f"{prompt} {stem}" for stem in self.check(audio)]

    def classify(
        self, audio: list[str], labels: list[str], prompt: str | None = None, method: str = "auto"
    ) -> list[dict[str, float]]:
        self.calls.append(("classify", {"prompt": prompt, "method": method}))
        return [{label: -1.0 if label == stem else -3.0 for label in labels} for stem in self.check(audio)]

    def search(self, query: str, audio: list[str]) -> list[tuple[int, float]]:
        scores = [len(set(query) & set(stem)) / 10 for stem in self.check(audio)]
        return sorted(enumerate(scores), key=lambda pair: -pair[1])


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Put the stand-in in place; returns the calls that it notes."""
    module = ModuleType("mint.inference")
    module.Mint = StubMint  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mint.inference", module)
    monkeypatch.setattr(StubMint, "calls", [], raising=False)
    return StubMint.calls


def test_caption_prints_a_line_for_each_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["caption", "run", "a/rain.wav", "dog.mp3"]) == 0
    assert capsys.readouterr().out == "a/rain.wav: the sound of rain\ndog.mp3: the sound of dog\n"


def test_caption_hands_on_only_the_options_given(calls: list[tuple[str, Any]]) -> None:
    main(["caption", "run", "a.wav"])
    main(["caption", "run", "a.wav", "--beams", "3", "--max-tokens", "20"])
    main(["ask", "run", "a.wav", "--prompt", "What", "--top-p", "0.5", "--sampling-seed", "7"])
    assert calls == [
        ("caption", {}),
        ("caption", {"num_beams": 3, "max_new_tokens": 20, "do_sample": False}),
        ("ask", {"do_sample": True, "top_p": 0.5, "temperature": 1.0, "top_k": 0, "seed": 7}),
    ]


def test_decoding_options_that_contradict_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["caption", "run", "a.wav", "--decoding", "greedy", "--beams", "3"]) == 2
    assert capsys.readouterr().err == "mint: error: beams belongs to beam decoding, not to greedy; leave it out\n"
    assert main(["caption", "run", "a.wav", "--top-p", "half"]) == 2
    assert "argument --top-p: 'half' is not a number" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-1", "2.5", "many"])
def test_counts_must_be_positive(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["caption", "run", "a.wav", f"--beams={value}"]) == 2
    assert f"argument --beams: {value!r} is not a whole number of at least 1" in capsys.readouterr().err


def test_ask(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "run", "rain.wav", "--prompt", "This is"]) == 0
    assert capsys.readouterr().out == "rain.wav: This is rain\n"


def test_classify_ranks_with_softmax_probabilities(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "run", "rain.wav", "--labels", "dog, rain,,engine", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    total = math.exp(-1) + 2 * math.exp(-3)
    assert (row["audio"], row["label"]) == ("rain.wav", "rain")
    assert [entry["label"] for entry in row["labels"]] == ["rain", "dog", "engine"]
    assert [entry["score"] for entry in row["labels"]] == [-1, -3, -3]
    assert [entry["probability"] for entry in row["labels"]] == pytest.approx(
        [math.exp(-1) / total, math.exp(-3) / total, math.exp(-3) / total]
    )


def test_classify_for_people(capsys: pytest.CaptureFixture[str], calls: list[tuple[str, Any]]) -> None:
    arguments = ["--labels", "dog,rain", "--top", "1", "--prompt", "This is", "--method", "similarity"]
    assert main(["classify", "run", "rain.wav", *arguments]) == 0
    assert capsys.readouterr().out == "rain.wav\n   88.1%  rain\n"
    assert calls == [("classify", {"prompt": "This is", "method": "similarity"})]


def test_classify_with_scores_far_below_zero(capsys: pytest.CaptureFixture[str]) -> None:
    """Sums over many tokens: a plain exponential would underflow to 0 / 0."""
    from mint.cli.classify import rank

    assert [row["probability"] for row in rank({"a": -2000.0, "b": -2000.0 + math.log(3)})] == pytest.approx(
        [0.75, 0.25]
    )


def test_classify_without_labels(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "run", "rain.wav", "--labels", " , "]) == 2
    assert capsys.readouterr().err.startswith("mint: error: --labels ' , ' names no label; write ")


VERBS = [
    ["caption", "run", "AUDIO"],
    ["ask", "run", "AUDIO", "--prompt", "What"],
    ["classify", "run", "AUDIO", "--labels", "dog,rain"],
    ["search", "run", "dog", "AUDIO"],
]


def with_audio(arguments: list[str], *audio: str, run: str = "run") -> list[str]:
    place = arguments.index("AUDIO")
    return [arguments[0], run, *arguments[2:place], *audio, *arguments[place + 1 :]]


@pytest.mark.parametrize("arguments", VERBS, ids=lambda arguments: arguments[0])
def test_one_bad_file_among_several(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*with_audio(arguments, "dog.wav", "bad.wav", "missing.wav", "x/bad.wav", "rain.wav"), "--json"]) == 2
    out, err = capsys.readouterr()
    assert {row["audio"] for row in json.loads(out)} == {"dog.wav", "rain.wav"}
    assert err.splitlines() == [
        "mint: error: bad.wav holds no samples; leave it out",
        "mint: error: no such file or folder: 'missing.wav'; check the path",
        "mint: error: x/bad.wav holds no samples; leave it out",
    ]


@pytest.mark.parametrize("arguments", VERBS, ids=lambda arguments: arguments[0])
def test_a_single_bad_file(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(with_audio(arguments, "bad.wav")) == 2
    assert capsys.readouterr() == ("", "mint: error: bad.wav holds no samples; leave it out\n")


@pytest.mark.parametrize("arguments", VERBS, ids=lambda arguments: arguments[0])
def test_a_run_at_fault_is_not_reported_for_every_file(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    audio = [f"{number}.wav" for number in range(100)]
    assert main(with_audio(arguments, *audio, run="stage1")) == 2
    assert capsys.readouterr().err.splitlines() == [
        "mint: 0.wav: error: the run has no language model; use stage 2",
        "mint: error: the run has no language model; use stage 2",
    ]


@pytest.mark.parametrize("arguments", VERBS, ids=lambda arguments: arguments[0])
def test_a_folder_that_is_no_run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(with_audio(arguments, "dog.wav", run="nowhere")) == 2
    assert capsys.readouterr().err == (
        "mint: error: 'nowhere' holds no trained model; train one with `mint quickstart`\n"
    )


def test_search_ranks_files_and_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("sub/dog.WAV", "sub/.dog.wav", "do.flac", "notes.txt", "x.mp3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    given = [str(tmp_path), str(tmp_path / "x.mp3"), "god.xyz"]
    assert main(["search", "run", "dog", *given, "--top", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"audio": str(tmp_path / "sub/dog.WAV"), "score": 0.3},
        {"audio": "god.xyz", "score": 0.3},
        {"audio": str(tmp_path / "do.flac"), "score": 0.2},
    ]
    assert main(["search", "run", "dog", "dog.wav", "x.wav"]) == 0
    assert capsys.readouterr().out == "   0.300  dog.wav\n   0.000  x.wav\n"


def test_search_in_a_folder_without_audio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "run", "dog", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"mint: error: no audio files below {str(tmp_path)!r}; give files or a folder that holds some\n"
    )
