"""What a checkpoint must hold to be loaded, and what it is known by: a commit of the hub, or the bytes of a folder."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, Wav2Vec2ForCTC, WhisperForConditionalGeneration
from transformers.utils import logging

from mint.assets import pretrained
from mint.assets.pretrained import identify, load_pretrained, load_weights_of, pin
from mint.builders.bridge import build_bridge
from mint.builders.encoder import build_encoder
from mint.builders.language import build_language
from mint.config import BridgeConfig, EncoderConfig, LanguageConfig
from mint.types import MintError
from tiny_encoders import tiny_spectrogram_model, tiny_waveform_model, waveform_extractor
from tiny_hub import TinyHub
from tiny_languages import tiny_language, tiny_seq2seq

SIZES: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 24}


def save(folder: Path, family: str) -> Callable[[], Any]:
    """A tiny model as a folder, and how a recipe would load it."""
    if family in ("data2vec", "wav2vec2", "hubert", "wavlm"):
        tiny_waveform_model(family).save_pretrained(folder)
        waveform_extractor().save_pretrained(folder)
        return lambda: build_encoder(EncoderConfig(family="waveform", weights=str(folder)))
    if family in ("whisper", "ast", "clap"):
        for part in tiny_spectrogram_model(family):
            part.save_pretrained(folder)
        return lambda: build_encoder(EncoderConfig(family="spectrogram", weights=str(folder)))
    if family == "bert":
        BertForMaskedLM(BertConfig(vocab_size=40, **SIZES)).save_pretrained(folder)
        return lambda: build_bridge(BridgeConfig(weights=str(folder), num_layers=2), audio_width=10, vocab_size=40)
    language: Any = tiny_seq2seq(family) if family in ("t5", "flan") else tiny_language(family)
    language.model.save_pretrained(folder)
    language.tokenizer.save_pretrained(folder)
    kind: Any = "seq2seq" if family in ("t5", "flan") else "causal"
    return lambda: build_language(LanguageConfig(family=kind, weights=str(folder)))


def edit(folder: Path, change: Callable[[str, Tensor], Tensor | None]) -> None:
    """Change or, by None, remove tensors of a folder's weights."""
    path = folder / "model.safetensors"
    changed = {name: change(name, tensor) for name, tensor in load_file(path).items()}
    save_file({name: tensor for name, tensor in changed.items() if tensor is not None}, path, {"format": "pt"})


SECOND_BLOCK = r"(layers?|h)\.1\.|(encoder|decoder)\.block\.1\."
FAMILIES = ("data2vec", "wav2vec2", "hubert", "wavlm", "whisper", "ast", "clap", "bert", "llama", "gpt2", "t5", "flan")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_that_lacks_a_block_is_refused(family: str, tmp_path: Path) -> None:
    load = save(tmp_path, family)
    load()
    edit(tmp_path, lambda name, tensor: None if re.search(SECOND_BLOCK, name) else tensor)
    with pytest.raises(MintError, match=r"the weights of '.*' lack '.*\.1\..*' and \d+ more that .* needs; copy them"):
        load()


@pytest.mark.parametrize("family", ["data2vec", "whisper", "bert", "llama", "flan"])
def test_weights_of_another_size_are_refused(family: str, tmp_path: Path) -> None:
    load = save(tmp_path, family)
    edit(tmp_path, lambda name, tensor: tensor[:3].clone() if re.search(SECOND_BLOCK, name) else tensor)
    with pytest.raises(MintError, match=r"the weights of '.*' have '.*\.1\..*' in the shape \(3.*\), not \(.*\)"):
        load()


@pytest.mark.parametrize(
    ("family", "unused"),
    [
        ("data2vec", "masked_spec_embed"),  # SpecAugment's, of the training of the encoder
        ("wavlm", "masked_spec_embed"),
        ("whisper", r"decoder\."),
        ("clap", "text_model|text_projection|audio_projection|logit_scale"),
    ],
)
def test_what_is_not_used_may_be_missing(family: str, unused: str, tmp_path: Path) -> None:
    load = save(tmp_path, family)
    before = len(load_file(tmp_path / "model.safetensors"))
    edit(tmp_path, lambda name, tensor: None if re.match(unused, name) else tensor)
    assert len(load_file(tmp_path / "model.safetensors")) < before
    load()


@torch.no_grad()
def test_heads_that_are_not_used_may_be_there(tmp_path: Path) -> None:
    """Checkpoints are mostly published with the head that they were tuned with."""
    encoder = Wav2Vec2ForCTC(tiny_waveform_model("wav2vec2").config)
    encoder.save_pretrained(tmp_path / "ctc")
    waveform_extractor().save_pretrained(tmp_path / "ctc")
    loaded: Any = build_encoder(EncoderConfig(family="waveform", weights=str(tmp_path / "ctc")))
    block = "encoder.layers.1.feed_forward.output_dense.weight"
    assert torch.equal(loaded.model.get_parameter(block), encoder.wav2vec2.get_parameter(block))

    model, extractor = tiny_spectrogram_model("whisper")
    speaking = WhisperForConditionalGeneration(model.config)
    speaking.save_pretrained(tmp_path / "speech")
    extractor.save_pretrained(tmp_path / "speech")
    loaded = build_encoder(EncoderConfig(family="spectrogram", weights=str(tmp_path / "speech")))
    assert torch.equal(loaded.model.layers[1].fc1.weight, speaking.model.encoder.layers[1].fc1.weight)


def test_a_head_may_be_tied_and_may_not_be_missing(tmp_path: Path) -> None:
    load = save(tmp_path / "tied", "t5")
    assert not any("lm_head" in name for name in load_file(tmp_path / "tied" / "model.safetensors"))
    load()
    load = save(tmp_path / "apart", "llama")
    edit(tmp_path / "apart", lambda name, tensor: None if name == "lm_head.weight" else tensor)
    with pytest.raises(MintError, match=r"lack 'lm_head.weight' that LlamaForCausalLM needs; copy them"):
        load()


def test_a_damaged_file(tmp_path: Path) -> None:
    load = save(tmp_path, "wav2vec2")
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MintError, match=r"the weights of '.*' are damaged \(.*\); copy them or download them again"):
        load()


@pytest.mark.parametrize("family", ["data2vec", "bert", "llama"])
def test_only_safetensors_are_read(family: str, tmp_path: Path) -> None:
    load = save(tmp_path, family)
    path = tmp_path / "model.safetensors"
    torch.save(load_file(path), tmp_path / "pytorch_model.bin")
    path.unlink()
    with pytest.raises(MintError) as raised:
        load()
    kind = "AutoModelForCausalLM" if family == "llama" else "AutoModel"
    assert str(raised.value) == (
        f"{str(tmp_path)!r} has no model.safetensors, and only safetensors are read; convert it by transformers' "
        f"{kind}.from_pretrained({str(tmp_path)!r}).save_pretrained(FOLDER), and copy its other files beside"
    )


FIRST, SECOND = "a" * 40, "b" * 40


def test_a_hub_name_is_known_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, encoder = TinyHub(tmp_path, monkeypatch), EncoderConfig(family="waveform", weights="org/encoder")
    hub.publish("org/encoder", FIRST, tiny_waveform_model("data2vec"), waveform_extractor())
    assert build_encoder(encoder).identity.startswith(f"data2vec-audio org/encoder@{FIRST}; ")
    assert pin("org/encoder") == FIRST
    hub.publish("org/encoder", SECOND, tiny_waveform_model("data2vec", seed=1), waveform_extractor())
    assert build_encoder(encoder).identity.startswith(f"data2vec-audio org/encoder@{SECOND}; ")
    assert pin("org/encoder") == SECOND
    pinned = build_encoder(replace(encoder, revision=FIRST))
    assert pinned.identity.startswith(f"data2vec-audio org/encoder@{FIRST}; ")
    language = tiny_language()
    hub.publish("org/language", SECOND, language.model, language.tokenizer)
    named = build_language(LanguageConfig(weights="org/language", revision="main", dtype="bfloat16"))
    assert named.identity == f"org/language@{SECOND} in bfloat16"


def test_what_cannot_be_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub converts the weights of a commit without safetensors only for those who ask for the branch."""
    hub = TinyHub(tmp_path / "hub", monkeypatch)
    snapshot = hub.publish("org/old", FIRST, tiny_waveform_model("data2vec"))
    (snapshot / "model.safetensors").rename(snapshot / "pytorch_model.bin")
    assert pin("org/old") is None
    assert identify("org/old") == f"org/old@{FIRST}"
    assert pin("org/nowhere") is pin(str(tmp_path)) is pin("asset:yamnet") is None


def test_a_folder_is_known_by_the_bytes_of_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read once, and again when a file was touched, also one with its old size and time of modification."""
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pretrained, "UNSURE", 0)
    reads: list[int] = []

    def sha256(data: bytes = b"") -> Any:
        reads.append(1)
        return hashlib.new("sha256", data)

    load = save(tmp_path / "llama", "llama")
    path = tmp_path / "llama" / "model.safetensors"
    first = load().identity
    assert first == f"sha256:{hashlib.sha256(path.name.encode() + path.read_bytes()).hexdigest()[:16]}"
    monkeypatch.setattr(hashlib, "sha256", sha256)
    reads.clear()
    assert load().identity == first
    assert len(reads) == 1  # of the folder's name
    times, weights = path.stat(), bytearray(path.read_bytes())
    weights[-1] ^= 1
    path.write_bytes(weights)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = load().identity
    assert second != first
    weights[-1] ^= 1
    path.write_bytes(weights)
    assert load().identity == first
    (tmp_path / "llama").rename(tmp_path / "moved")
    assert identify(str(tmp_path / "moved")) == first


def test_a_digest_that_cannot_be_kept_or_read_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pretrained, "UNSURE", 0)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    first = identify(str(tmp_path))
    (kept,) = (tmp_path / "cache" / "weights").iterdir()
    for content in ("", "{", "[]", '{"states": 1}'):
        kept.write_text(content)
        assert identify(str(tmp_path)) == first
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "model.safetensors"))
    assert identify(str(tmp_path)) == first


def test_the_digest_of_a_file_that_was_just_written_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    identify(str(tmp_path))
    assert not (tmp_path / "cache").exists()


def test_one_thread_at_a_time_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at once would change torch's default precision, and what is drawn, for each other."""
    active: list[int] = []
    most_at_once: list[int] = []

    class Model:
        @staticmethod
        def from_pretrained(source: str, **_: Any) -> Any:
            active.append(1)
            most_at_once.append(len(active))
            time.sleep(0.005)
            active.pop()
            return Model(), {"missing_keys": [], "mismatched_keys": [], "unexpected_keys": []}

    monkeypatch.setattr(pretrained, "auto_class", lambda _: Model)

    def load(number: int) -> None:
        (load_pretrained if number % 2 else load_weights_of)("AutoModel", f"org/{number}", None)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(load, range(16)))
    assert most_at_once == [1] * 16


THREADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from mint.builders.encoder import build_encoder
from mint.builders.language import build_language
from mint.config import EncoderConfig, LanguageConfig

together = Barrier(8)

def build(number):
    together.wait()
    if number % 2:
        return build_encoder(EncoderConfig(family="waveform", weights=sys.argv[1]), "cpu").identity
    return build_language(LanguageConfig(weights=sys.argv[2])).identity

with ThreadPoolExecutor(8) as pool:
    print(len(set(pool.map(build, range(8)))))
"""


@pytest.mark.slow
def test_threads_that_load_the_first_models_of_a_process(tmp_path: Path) -> None:
    """All of them import transformers, and build models, at once."""
    save(tmp_path / "encoder", "wav2vec2")
    save(tmp_path / "language", "llama")
    command = [sys.executable, "-c", THREADS, str(tmp_path / "encoder"), str(tmp_path / "language")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("2\n", 0), done.stderr


@pytest.mark.parametrize("error", [ImportError("Could not import module"), RuntimeError("__set_name__"), None])
def test_an_interrupt_that_a_library_hides(error: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library hides it while it is imported; it must not be reported as a model that cannot be loaded."""

    class Model:
        @staticmethod
        def from_pretrained(source: str, **_: Any) -> None:
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            if error is not None:
                raise error

    monkeypatch.setattr(pretrained, "auto_class", lambda _: Model)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        load_pretrained("AutoConfig", "org/model", None)
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.setattr(signal, "raise_signal", lambda _: None)
    if isinstance(error, ImportError):
        with pytest.raises(MintError, match="cannot load 'org/model' by AutoConfig"):
            load_pretrained("AutoConfig", "org/model", None)


@pytest.mark.parametrize("family", ["bert", "llama", "flan", "whisper"])
def test_weights_of_a_folder_are_loaded_without_a_word(
    family: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    load = save(tmp_path, family)
    capfd.readouterr()
    load()
    assert capfd.readouterr().err == ""
    assert logging.is_progress_bar_enabled()  # for what others load in this process
