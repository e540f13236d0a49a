"""The verbs that use a finished run, over a stand-in for `mint.inference`."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mint.cli import main
from mint.cli.classify import read_labels
from mint.inference import Answer
from mint.inference.ranking import rank_labels
from mint.types import MintError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


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

    def each(self, audio: Iterable[str], call: Callable[[list[str]], list[Any]]) -> Iterator[Answer[Any]]:
        """Answers one by one, as the real class gives them; a run at fault is told at once."""
        if self.folder == "stage1":
            raise MintError("the run has no language model; use stage 2")
        return (self.answer(path, call) for path in audio)

    def answer(self, path: str, call: Callable[[list[str]], list[Any]]) -> Answer[Any]:
        try:
            return Answer(path, call([path])[0])
        except (MintError, OSError) as error:
            return Answer(path, None, error)

    def caption_each(self, audio: Iterable[str], **options: Any) -> Iterator[Answer[Any]]:
        return self.each(audio, lambda paths: self.caption(paths, **options))

    def ask_each(self, audio: Iterable[str], prompt: str, **options: Any) -> Iterator[Answer[Any]]:
        return self.each(audio, lambda paths: self.ask(paths, prompt, **options))

    def classify_each(self, audio: Iterable[str], labels: list[str], **options: Any) -> Iterator[Answer[Any]]:
        return self.each(audio, lambda paths: self.classify(paths, labels, **options))

    def embed_each(self, audio: Iterable[str], cached: bool = False) -> Iterator[Answer[Any]]:
        return self.each(audio, lambda paths: list(self.embed_audio(paths)))

    def embed_text(self, texts: list[str]) -> Tensor:
        self.calls.append(("embed_text", texts))
        return torch.stack([letters(text) for text in texts])

    def embed_audio(self, audio: list[str]) -> Tensor:
        return torch.stack([letters(stem) for stem in self.check(audio)])[:, None]


def letters(text: str) -> Tensor:
    """Which letters a text has, of length 1."""
    counts = torch.tensor([float(chr(code) in text) for code in range(ord("a"), ord("z") + 1)])
    return functional.normalize(counts, dim=0)


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
    assert [row["probability"] for row in rank_labels({"a": -2000.0, "b": -2000.0 + math.log(3)})] == pytest.approx(
        [0.75, 0.25]
    )


def test_classify_without_labels(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "run", "rain.wav", "--labels", " , "]) == 2
    assert capsys.readouterr().err.startswith("mint: error: --labels ' , ' names no label; write ")


VERBS = [
    ["caption", "run", "AUDIO"],
    ["ask", "run", "AUDIO", "--prompt", "What"],
    ["classify", "run", "AUDIO", "--labels", "dog,rain"],
    ["embed", "run", "AUDIO"],
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
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "mint: error: the run has no language model; use stage 2"
    assert len(lines) <= 2


@pytest.mark.parametrize("arguments", VERBS, ids=lambda arguments: arguments[0])
def test_a_folder_that_is_no_run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(with_audio(arguments, "dog.wav", run="nowhere")) == 2
    assert capsys.readouterr().err == (
        "mint: error: 'nowhere' holds no trained model; train one with `mint quickstart`\n"
    )


def test_search_ranks_files_and_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], calls: list[tuple[str, Any]]
) -> None:
    for name in ("sub/dog.WAV", "sub/.dog.wav", ".trash/dog.wav", "do.flac", "notes.txt", "x.mp3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "linked").symlink_to(tmp_path / "sub")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    given = [str(tmp_path), str(tmp_path / "x.mp3"), "god.xyz"]
    assert main(["search", "run", "dog", *given, "--top", "4", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["audio"] for row in rows] == [
        str(tmp_path / "linked" / "dog.WAV"),  # a folder is entered once, by the name that comes first
        "god.xyz",
        str(tmp_path / "do.flac"),
        str(tmp_path / "x.mp3"),
    ]
    assert [row["score"] for row in rows] == pytest.approx([1, 1, 2 / math.sqrt(6), 0])
    assert calls == [("embed_text", ["dog"])]  # once, however many files there are
    assert main(["search", "run", "dog", "dog.wav", "x.wav"]) == 0
    assert capsys.readouterr().out == "   1.000  dog.wav\n   0.000  x.wav\n"


def test_search_in_a_folder_without_audio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "run", "dog", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"mint: error: there are no audio files below {str(tmp_path)!r}; give files, or a folder that holds some\n"
    )


@pytest.mark.parametrize("arguments", VERBS, ids=lambda arguments: arguments[0])
@pytest.mark.parametrize(
    "audio",
    [
        ["dog.wav", "--json", "rain.wav"],
        ["--json", "dog.wav", "rain.wav"],
        ["dog.wav", "--json", "--", "rain.wav"],
    ],
    ids=" ".join,
)
def test_options_between_the_files(arguments: list[str], audio: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    verb, _, *rest = arguments
    place = rest.index("AUDIO")
    # What follows AUDIO, such as --prompt, comes first, so that `--` ends the options.
    assert main([verb, *rest[place + 1 :], "run", *rest[:place], *audio]) == 0
    assert {row["audio"] for row in json.loads(capsys.readouterr().out)} == {"dog.wav", "rain.wav"}


def test_a_file_whose_name_begins_with_a_hyphen_stands_after_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["caption", "run", "dog.wav", "--json", "rain.wav", "--", "-x.wav"]) == 0
    assert [row["audio"] for row in json.loads(capsys.readouterr().out)] == ["dog.wav", "rain.wav", "-x.wav"]
    assert main(["caption", "run", "dog.wav", "--json", "-x.wav"]) == 2
    assert capsys.readouterr().err == (
        "mint: error: unrecognized arguments: -x.wav; `mint caption --help` shows the arguments\n"
    )


def test_an_interruption_that_libsndfile_swallows_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C while it calls back for bytes: cffi prints the exception, and the file seems to be damaged."""
    done: list[str] = []

    def embed_audio(_: StubMint, audio: list[str]) -> Tensor:
        done.extend(audio)
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise MintError(f"{audio[0]}: not audio that can be decoded")

    monkeypatch.setattr(StubMint, "embed_audio", embed_audio)
    assert main(["search", "run", "dog", "a.wav", "b.wav"]) == 130
    assert done == ["a.wav"]
    assert capsys.readouterr().err == "mint: interrupted\n"


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        (["dog,cat"], ["dog", "cat"]),
        ([" dog , cat,,dog"], ["dog", "cat"]),
        (['"rain, heavy",cat'], ["rain, heavy", "cat"]),
        (['cat, "rain, heavy"'], ["cat", "rain, heavy"]),
        (['a "quoted" word,"with ""quotes"", too"'], ['a "quoted" word', 'with "quotes", too']),
        (["dog\ncat\n"], ["dog", "cat"]),
        (["dog", "cat,dog"], ["dog", "cat"]),
        (['"@home",cat'], ["@home", "cat"]),
    ],
)
def test_labels_as_csv_and_repeated(given: list[str], labels: list[str]) -> None:
    assert read_labels(given) == labels


@pytest.mark.parametrize(
    "content",
    [
        "rain, heavy\ndog\n\n  Chien aboyant très fort \ndog\n".encode(),
        "rain, heavy\r\ndog\r\nChien aboyant très fort".encode("cp1252"),
        "rain, heavy\ndog\nChien aboyant très fort\n".encode("utf-16"),
        "rain, heavy\ndog\nChien aboyant très fort\n".encode("utf-8-sig"),
    ],
    ids=["UTF-8", "Windows-1252", "UTF-16", "UTF-8 with its mark"],
)
def test_labels_of_a_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    labels = ["rain, heavy", "dog", "Chien aboyant très fort"]
    assert read_labels([f"@{tmp_path / 'labels.txt'}"]) == labels
    assert read_labels(["siren", f"@{tmp_path / 'labels.txt'}", "dog"]) == ["siren", *labels]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ('"rain, heavy', "--labels '\"rain, heavy' cannot be read (unexpected end of data); put a label that holds"),
        ("@", "--labels '@' names no file; write"),
        ("@nowhere.txt", "no such file or folder: 'nowhere.txt'; check the path"),
        ("@.", "'.' is a folder; give a file"),
        ("@empty.txt", "--labels '@empty.txt' names no label; write"),
        ("@sheet.xlsx", "sheet.xlsx is no text but a zip archive or a spreadsheet; unpack it"),
    ],
)
def test_labels_that_cannot_be_read(
    labels: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n \n")
    Path("sheet.xlsx").write_bytes(b"PK\x03\x04 and so on")
    assert main(["classify", "run", "rain.wav", "--labels", labels]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mint: error: {message}")


def test_labels_without_a_comma_are_not_taken_for_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "run", "rain.wav", "--labels", "dog", "cat"]) == 2
    assert capsys.readouterr().err == (
        "mint: error: cat: no such audio file; if it is a label, write --labels A,cat with a comma\n"
    )


def test_twenty_thousand_labels_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(f"label {number}" for number in range(20_000)))
    assert main(["classify", "run", "rain.wav", "--labels", f"@{path}", "--top", "1"]) == 0
    assert capsys.readouterr().out.startswith("rain.wav\n    0.0%  label ")
