"""The class `Mint` over tiny models: forms of input, the same answers as in evaluation, long clips, errors."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from mint import Mint, predict
from mint.builders import stages
from mint.builders.encoder import build_encoder
from mint.builders.stages import load_trained
from mint.config import load_recipe
from mint.data.features import stream
from mint.data.features.prepare import prepare_features, read_examples
from mint.inference import Method, loading
from mint.types import Clip, MintError
from tiny_runs import LABELS, RATE, shared_run, train_recipe, write_corpus

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = list(LABELS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of both stages; the clips lie beside it."""
    yield from shared_run(tmp_path_factory, max_steps=30)


@pytest.fixture(scope="module")
def mint(run: Path) -> Mint:
    return Mint.from_pretrained(run)


@pytest.fixture(scope="module")
def paths(run: Path) -> list[Path]:
    """Clips of three lengths."""
    return sorted(run.parent.glob("*.wav"))[:3]


def forms(path: Path) -> list[Any]:
    """One clip in every form that there is."""
    samples, rate = soundfile.read(path, dtype="float32")
    return [path, str(path), (samples, rate), Clip(samples, rate), (np.stack([samples, samples]), rate)]


def test_every_form_of_audio_gives_the_same(mint: Mint, paths: list[Path]) -> None:
    first, *others = [mint.embed_audio(form) for form in forms(paths[0])]
    assert all(torch.equal(first, other) for other in others)
    first_text, *other_texts = [mint.caption(form) for form in forms(paths[0])]
    assert other_texts == [first_text] * len(others)


def test_one_gives_one_and_a_list_gives_a_list(mint: Mint, paths: list[Path]) -> None:
    given: list[Any] = [paths[0], *forms(paths[1])[2:]]
    assert isinstance(mint.caption(paths[0]), str)
    assert mint.caption(given) == [mint.caption(one) for one in given]
    assert mint.ask(given, "The pitch is") == [mint.ask(one, "The pitch is") for one in given]
    assert mint.embed_audio(given).shape == (4, *mint.embed_audio(paths[0]).shape)
    assert mint.embed_text(NAMES).shape == (3, *mint.embed_text("low").shape)
    torch.testing.assert_close(mint.embed_text(NAMES)[1], mint.embed_text(NAMES[1]))


@pytest.mark.parametrize("method", ["vocabulary", "similarity"])
def test_clips_alone_score_as_in_a_list(mint: Mint, paths: list[Path], method: Any) -> None:
    together = mint.classify(paths, NAMES, method=method)
    for path, scores in zip(paths, together, strict=True):
        assert mint.classify(path, NAMES, method=method) == pytest.approx(scores, abs=1e-4)
        assert list(scores) == NAMES


def test_embeddings_have_length_one(mint: Mint, paths: list[Path]) -> None:
    audio, text = mint.embed_audio(paths), mint.embed_text(NAMES)
    assert audio.shape == (3, 4, text.shape[1])
    torch.testing.assert_close(audio.norm(dim=-1), torch.ones(3, 4))
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(3))


def test_search_ranks_by_the_best_query(mint: Mint, paths: list[Path]) -> None:
    found = mint.search("a high tone", paths)
    cosines = [float((mint.embed_audio(path) @ mint.embed_text("a high tone")).max()) for path in paths]
    assert [place for place, _ in found] == sorted(range(3), key=lambda place: -cosines[place])
    assert [score for _, score in found] == pytest.approx(sorted(cosines, reverse=True), abs=1e-5)


def test_similarity_scores_are_those_of_the_contrastive_objective(mint: Mint, run: Path, paths: list[Path]) -> None:
    temperature = load_file(run / "stage1" / "model.safetensors")["temperature"].item()
    scores = mint.classify(paths[0], NAMES, prompt="The pitch is", method="similarity")
    cosines = (mint.embed_audio(paths[0]) @ mint.embed_text([f"The pitch is {name}" for name in NAMES]).T).amax(dim=0)
    assert list(scores.values()) == pytest.approx((cosines / temperature).tolist(), abs=1e-4)


def test_the_same_answers_as_in_evaluation(mint: Mint, run: Path, paths: list[Path]) -> None:
    """Evaluation reads its features from the cache, `Mint` computes them."""
    examples = [e for e in read_examples([run.parent / "tones.jsonl"]) if e.audio in paths]
    encoder = build_encoder(load_recipe(run / "stage2" / "recipe.yaml").encoder)
    features = prepare_features(encoder, examples)
    clips = [features.windows(example) for example in examples]
    stage2 = load_trained({2: run / "stage2"}, "cpu").stage2
    assert stage2 is not None
    sums, counts = predict.rank_vocabulary(stage2, clips, "The pitch is", NAMES)
    audio = [example.audio for example in examples]
    found = mint.classify(audio, NAMES, prompt="The pitch is")
    means = mint.classify(audio, NAMES, prompt="The pitch is", scoring="mean")
    assert [list(scores.values()) for scores in found] == sums.tolist()
    assert [list(scores.values()) for scores in means] == (sums / counts).tolist()
    assert mint.caption(audio) == predict.generate(stage2, clips, "Generate audio caption:")


def test_generation_options_reach_the_language_model(mint: Mint, paths: list[Path]) -> None:
    assert len(mint.caption(paths[0], max_new_tokens=2).encode()) <= 2 < len(mint.caption(paths[0]).encode())
    with pytest.raises(MintError, match=r"cannot generate with {'early_stopping': 'x', 'num_beams': 2}: .*x"):
        mint.caption(paths[0], early_stopping="x", num_beams=2)


def test_max_length_takes_the_place_of_the_default_length(mint: Mint, paths: list[Path]) -> None:
    """It counts the soft prompt (4 queries) and the prompt, a byte a token."""
    prefix = 4 + len("Generate audio caption:")
    assert mint.caption(paths[0], max_length=prefix + 5) == mint.caption(paths[0], max_new_tokens=5)


def test_seeds_decide_what_is_drawn(mint: Mint, paths: list[Path]) -> None:
    drawn: dict[str, Any] = {"do_sample": True, "top_k": 0, "max_new_tokens": 12}
    texts = [mint.caption(paths[0], seed=seed, **drawn) for seed in (0, 1, 0, -1)]
    assert texts[0] == texts[2]
    assert len(set(texts)) == 3


def test_labels_may_be_any_iterable_of_texts(mint: Mint, paths: list[Path]) -> None:
    expected = mint.classify(paths[0], NAMES)
    for labels in (tuple(NAMES), (name for name in NAMES), np.array(NAMES), np.array(NAMES, dtype=object)):
        scores = mint.classify(paths[0], labels)
        assert scores == expected
        assert {type(label) for label in scores} == {str}
    assert mint.classify(paths[0], [*NAMES, NAMES[0]]) == expected


def test_texts_may_be_any_iterable(mint: Mint) -> None:
    expected = mint.embed_text(NAMES)
    assert expected.shape[0] == 3
    for texts in (tuple(NAMES), (name for name in NAMES), np.array(NAMES)):
        assert torch.equal(mint.embed_text(texts), expected)
    assert mint.embed_text(("low",)).shape == (1, expected.shape[1])
    assert torch.equal(mint.embed_text(np.str_("low")), mint.embed_text("low"))


def test_search_through_any_iterable(mint: Mint, paths: list[Path]) -> None:
    expected = mint.search("a high tone", paths)
    assert mint.search("a high tone", (path for path in paths)) == expected  # type: ignore[arg-type]
    assert mint.search("a high tone", np.array([str(path) for path in paths])) == expected  # type: ignore[arg-type]


def test_the_device_is_the_default_one_unless_it_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cpu:0` stands for an accelerator, which this machine need not have."""
    assert Mint.from_pretrained(run, device="cpu").device == torch.device("cpu")
    monkeypatch.setattr(loading, "default_device", lambda: torch.device("cpu", 0))
    assert Mint.from_pretrained(run).device == torch.device("cpu", 0)
    assert Mint.from_pretrained(run, "cpu").device == torch.device("cpu")
    for device in ("gpu", "cuda:77", 3.5, "meta"):
        with pytest.raises(MintError, match="device"):
            Mint.from_pretrained(run, device)  # type: ignore[arg-type]
        with pytest.raises(MintError, match="device"):
            Mint.from_pretrained(run).to(device)  # type: ignore[arg-type]


def sparse_wav(path: Path, seconds: int) -> Path:
    """Silence whose samples take no room on the disk."""
    size = seconds * RATE * 2
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16, b"data", size
    )
    path.write_bytes(header)
    with path.open("r+b") as file:
        file.truncate(len(header) + size)
    return path


def test_three_hours_take_the_memory_of_a_window(mint: Mint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    def encode(_: Any, samples: Any) -> list[Tensor]:
        lengths.extend(map(len, samples))
        return [torch.ones(2, 16) for _ in samples]

    monkeypatch.setattr(stream, "encode_batch", encode)
    path = sparse_wav(tmp_path / "long.wav", 3 * 60 * 60)
    tracemalloc.start()
    mint.embed_audio(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lengths == [30 * RATE] * 10
    assert peak < 32 * 2**20


def test_windows_of_a_long_clip_are_averaged(mint: Mint) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 75 * RATE).astype(np.float32)
    parts = [samples[round(start * RATE) :][: 30 * RATE] for start in (0, 22.5, 45)]
    alone = mint.embed_audio([(part, RATE) for part in parts])
    torch.testing.assert_close(mint.embed_audio((samples, RATE)), functional.normalize(alone.mean(dim=0), dim=-1))
    scores = torch.tensor([list(one.values()) for one in mint.classify([(part, RATE) for part in parts], NAMES)])
    assert list(mint.classify((samples, RATE), NAMES).values()) == pytest.approx(scores.mean(dim=0).tolist(), abs=1e-3)
    assert mint.caption((samples, RATE)) in mint.caption([(part, RATE) for part in parts])


def test_embeddings_and_search_need_no_language_model(
    run: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the language model is loaded")

    monkeypatch.setattr(loading, "build_language", refuse)
    mint = Mint.from_pretrained(run)
    mint.embed_audio(paths[0])
    mint.search("a tone", paths)
    mint.classify(paths[0], NAMES, method="similarity")
    with pytest.raises(AssertionError, match="is loaded"):
        mint.caption(paths[0])


@pytest.mark.parametrize("stage", [1, 2])
def test_one_stage_alone(run: Path, paths: list[Path], stage: int, tmp_path: Path) -> None:
    (tmp_path / f"stage{stage}").symlink_to(run / f"stage{stage}")
    mint = Mint.from_pretrained(tmp_path)
    both = Mint.from_pretrained(run)
    method: Method = "similarity" if stage == 1 else "vocabulary"
    assert mint.classify(paths, NAMES) == both.classify(paths, NAMES, method=method)
    if stage == 1:
        with pytest.raises(MintError, match=r"stage1 is a stage 1 alone; captions, .* need stage 2: train it"):
            mint.caption(paths[0])
    else:
        mint.folders = {2: tmp_path / "stage2"}
        with pytest.raises(MintError, match="stage2 is a stage 2 alone; embeddings and similarity need stage 1"):
            mint.search("a tone", paths)


def test_moving(mint: Mint, paths: list[Path]) -> None:
    before = mint.caption(paths[0]), mint.embed_audio(paths[0])
    assert mint.to("cpu") is mint
    assert mint.caption(paths[0]) == before[0]
    assert torch.equal(mint.embed_audio(paths[0]), before[1])


@pytest.mark.gpu
def test_the_accelerator_gives_what_the_cpu_gives(run: Path, paths: list[Path]) -> None:
    cpu, gpu = Mint.from_pretrained(run).to("cpu"), Mint.from_pretrained(run).to("cuda")
    torch.testing.assert_close(gpu.embed_audio(paths), cpu.embed_audio(paths), atol=1e-4, rtol=0)
    for scores, other in zip(gpu.classify(paths, NAMES), cpu.classify(paths, NAMES), strict=True):
        assert scores == pytest.approx(other, abs=1e-2)
    assert gpu.caption(paths) == cpu.caption(paths)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda mint, _: mint.caption([]), "the list of audio is empty"),
        (lambda mint, _: mint.embed_text([]), "the list of texts is empty"),
        (lambda mint, path: mint.ask(path, " "), "the prompt is ' '; give an instruction"),
        (lambda mint, path: mint.classify(path, []), "the list of labels is empty"),
        (lambda mint, path: mint.classify(path, "dog"), "labels are 'dog'; give a list"),
        (lambda mint, path: mint.classify(path, b"dog"), "labels are b'dog'; give a list"),
        (lambda mint, path: mint.classify(path, 3), "labels are 3; give a list"),
        (lambda mint, path: mint.classify(path, iter([])), "the list of labels is empty"),
        (lambda mint, path: mint.classify(path, ["dog", " "]), "the label is ' '; give a list of texts"),
        (lambda mint, path: mint.classify(path, ["dog", float("nan")]), "the label is nan; give a list of texts"),
        (lambda mint, path: mint.classify(path, np.array([["dog"]])), "the label is array.*; give a list of texts"),
        (lambda mint, path: mint.classify(path, ["dog", "\ud800"]), r"the label '\\ud800' is not valid Unicode"),
        (lambda mint, path: mint.classify(path, ["dog"], prompt="\udcff"), "the prompt .* is not valid Unicode"),
        (lambda mint, path: mint.classify(path, ["dog"], prompt=["a"]), r"the prompt is \['a'\]; give one"),
        (lambda mint, path: mint.classify(path, ["dog"], method=["auto"]), r"method is \['auto'\]; choose one"),
        (
            lambda mint, path: mint.classify(path, ["dog"], method="similarity", scoring="mean"),
            "scoring 'mean' belongs",
        ),
        (lambda mint, path: mint.ask(path, None), "the prompt is None; give an instruction"),
        (lambda mint, path: mint.ask(path, ["a", "b"]), r"the prompt is \['a', 'b'\]; give an instruction"),
        (lambda mint, path: mint.ask(path, "caf\udce9"), r"the prompt 'caf\\udce9' is not valid Unicode"),
        (lambda mint, path: mint.caption(path, prompt="a"), "'prompt' is no option of generation"),
        (lambda mint, path: mint.caption(path, num_beams=0), "num_beams is 0; give a whole number"),
        (lambda mint, path: mint.caption(path, return_dict_in_generate=True), "return_dict_in_generate is True"),
        (lambda mint, path: mint.caption(path, num_beams=2, num_return_sequences=2), "num_return_sequences is 2"),
        (lambda mint, path: mint.caption(path, num_beans=3), "'num_beans' is no option .* did you mean 'num_beams'"),
        (lambda mint, path: mint.caption(path, batch_size=0), "'batch_size' is no option of generation"),
        (lambda mint, path: mint.caption(path, seed="x"), "seed is 'x'; give a whole number"),
        (lambda mint, path: mint.caption(path, seed=1 << 64), "seed is 18446744073709551616; give a whole number"),
        (lambda mint, _: mint.embed_text(None), "texts are None; give a list"),
        (lambda mint, _: mint.embed_text(["a", None]), "the text is None; give one"),
        (lambda mint, _: mint.embed_text("\ud800"), "the text .* is not valid Unicode"),
        (lambda mint, path: mint.search("dog", str(path)), "the clips are '.*dog.wav'; give a list"),
        (lambda mint, path: mint.search("dog", (np.zeros(9), 16000)), r"the clips are \(array.*; give a list"),
        (lambda mint, path: mint.search("dog", None), "the clips are None; give a list"),
        (lambda mint, path: mint.search("dog", []), "the list of clips is empty"),
        (lambda mint, path: mint.search(" ", [path]), "the query is ' '; give a description"),
        (lambda mint, path: mint.search(["dog"], [path]), r"the query is \['dog'\]; give a description"),
        (lambda mint, path: Mint.from_pretrained(path), "dog.wav' is a file; give the folder"),
        (lambda mint, path: Mint.from_pretrained(path.parent / ("x" * 300)), "no such folder|cannot read"),
        (lambda mint, path: Mint.from_pretrained("~nobody-of-that-name/run"), "cannot read '~nobody-of-that-name/run'"),
        (lambda mint, path: mint.from_pretrained(None), "the run is None; give the folder"),
        (lambda mint, path: mint.classify(path, ["dog"], method="guess"), "method is 'guess'; choose one of auto, voc"),
        (lambda mint, path: mint.classify(path, ["dog"], scoring="max"), "scoring is 'max'; choose one of sum, mean"),
        (lambda mint, path: mint.classify(path, ["dog"], scoring="prior"), "'prior' compares several clips"),
        (lambda mint, path: mint.caption(f"{path}.wav"), "dog.wav.wav: no such audio file"),
        (lambda mint, path: mint.search("a tone", [path]), "dog.wav: not audio that can be decoded"),
        (lambda mint, _: mint.caption(np.zeros(9)), "audio is ndarray; give a path or"),
    ],
)
def test_mistakes(mint: Mint, tmp_path: Path, call: Any, message: str) -> None:
    (tmp_path / "dog.wav").write_text("not audio")
    with pytest.raises(MintError, match=message):
        call(mint, tmp_path / "dog.wav")


def test_prior_compares_the_clips(mint: Mint, paths: list[Path]) -> None:
    sums = torch.tensor([list(scores.values()) for scores in mint.classify(paths, NAMES)])
    found = torch.tensor([list(scores.values()) for scores in mint.classify(paths, NAMES, scoring="prior")])
    torch.testing.assert_close(found, sums - sums.mean(dim=0))


@pytest.mark.slow
def test_the_models_of_the_quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Genuine weights, two steps a stage: everything fits together, and a run needs no look at its BERT."""
    monkeypatch.setattr("mint.data.features.prepare.cache_folder", lambda: tmp_path / "cache")
    manifest = write_corpus(tmp_path, clips=3, seconds=1.0)
    changes = [f"data.manifests=[{manifest}]", "data.mixture={}", "training.max_steps=2"]
    changes += ["training.per_device_train_batch_size=4", "training.report_to=[]", "training.warmup_steps=0"]
    run = tmp_path / "run"
    train_recipe(load_recipe("quickstart/stage1", changes), run / "stage1")
    train_recipe(load_recipe("quickstart/stage2", [*changes, f"start={run / 'stage1'}"]), run / "stage2")
    monkeypatch.setattr(stages, "bridge_sizes", lambda *_: pytest.fail("BERT's configuration is read"))
    mint = Mint.from_pretrained(run)
    clips = sorted(tmp_path.glob("*.wav"))[:2]
    assert mint.caption(clips, max_new_tokens=5) == [mint.caption(clip, max_new_tokens=5) for clip in clips]
    scores = mint.classify(clips, ["low", "high"])
    assert all(-100 < score < 0 for one in scores for score in one.values())
    assert scores[0] != scores[1]
    assert mint.embed_audio(clips).shape == (2, 8, 256)
    copy = Mint.from_pretrained(mint.save_pretrained(tmp_path / "copy"))
    assert copy.classify(clips, ["low", "high"]) == scores
