"""The class `Mint`: what a user of a trained model calls.

It wires audio of any form to the predictions of `mint.predict`, so that a model says of a file what it said of it in
evaluation. Long clips are read as evenly spaced windows, one in memory at a time.

Several threads may use one model: audio is decoded side by side, and the models load and compute for one call at a
time.
"""

from __future__ import annotations

import reprlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, overload

import torch
from torch import Tensor, nn

from mint import hub, predict
from mint.builders.encoder import build_encoder
from mint.builders.language import build_language
from mint.builders.stages import TrainedStage, load_stage1, load_stage2
from mint.config import Recipe
from mint.data.audio.decode import AudioSource, load_windows
from mint.data.features.encode import encode_samples
from mint.data.manifests.prompts import SOUND_PROMPT
from mint.evaluation.metrics.similarity import similarity
from mint.language.options import check_options
from mint.machine import checked_device, default_device
from mint.model.memory import align_weights
from mint.model.stage1 import Stage1
from mint.model.stage2 import Stage2
from mint.predict import Scoring, finish_scores
from mint.run_folder import check_frozen, find_stages, load_run_recipe, load_tokenizer
from mint.text_files import one_line
from mint.types import CAPTION_PROMPT, AudioEncoder, Clip, MintError
from mint.user_input import checked_labels, checked_seed, checked_text, listed

Method = Literal["auto", "vocabulary", "similarity"]
Model = TypeVar("Model", Stage1, Stage2)

CLIPS_AT_ONCE = 32
"""Clips whose features are in memory together."""

_MODELS = threading.RLock()
"""Held while models are loaded or compute.

One lock for the whole process, as they change what belongs to it: torch's generator and default precision, and the
imports of transformers.
"""


class Mint:
    """A trained model: stage 1 (embeddings, similarity), stage 2 (text), or both.

    `audio` is everywhere a path, a `Clip` or (samples, rate in Hz), in any format, rate and number of channels; or a
    list of these. One clip gives one result, a list gives a list. Stages are loaded when they are first needed: what
    asks stage 1 alone never loads the language model.

    Args:
        folders: folder of each finished stage, by stage.
        device: device of the models.

    Raises:
        MintError: the device does not exist, or the encoder here is not the one that the run was trained with.
    """

    def __init__(self, folders: dict[int, Path], device: torch.device | str = "cpu") -> None:
        self.folders = folders
        self.device = checked_device(device)
        self._recipes: dict[int, Recipe] = {n: load_run_recipe(path) for n, path in folders.items()}
        self._stage1: TrainedStage[Stage1] | None = None
        self._stage2: TrainedStage[Stage2] | None = None

        stage, folder = next(iter(folders.items()))
        with _MODELS:
            self._encoder: AudioEncoder = build_encoder(self._recipes[stage].encoder, self.device)
            align_weights(self._encoder)
        check_frozen(folder, "encoder", self._encoder.identity)

    @classmethod
    def from_pretrained(cls, run_or_repo: str | Path, device: torch.device | str | None = None) -> Mint:
        """Load a finished run.

        Args:
            run_or_repo: folder of a run (with `stage1` and `stage2`, or one of these itself), or its name on the hub.
            device: device of the models, such as "cuda:1"; None: the accelerator where there is one, else the CPU.

        Raises:
            MintError: no such folder, name or device, or no finished run there.
        """
        if not isinstance(run_or_repo, str | Path):
            raise MintError(f"the run is {reprlib.repr(run_or_repo)}; give the folder of a finished run")

        # A folder comes before a name on the hub, which may look the same.
        try:
            folder = Path(run_or_repo).expanduser()
            exists = folder.exists()
        except (OSError, RuntimeError) as error:  # a name that is too long; a home folder that is nobody's
            raise MintError(f"cannot read {str(run_or_repo)!r} ({error}); give the folder of a finished run") from None
        if not exists:
            folder = hub.download(str(run_or_repo))

        return cls(find_stages(folder), default_device() if device is None else device)

    def to(self, device: torch.device | str) -> Mint:
        """Move to a device, such as "cuda:1"; what is not loaded yet will be loaded there.

        Raises:
            MintError: there is no such device.
        """
        device = checked_device(device)
        with _MODELS:
            self.device = device
            if isinstance(self._encoder, nn.Module):
                self._encoder.to(device)
            if self._stage1 is not None:
                self._stage1.model.to(device)
            # Stage 2 is loaded again where it is needed, with its language model.
            self._stage2 = None
        return self

    @overload
    def caption(self, audio: AudioSource, **options: Any) -> str: ...
    @overload
    def caption(self, audio: list[Any], **options: Any) -> list[str]: ...
    def caption(self, audio: AudioSource | list[Any], **options: Any) -> str | list[str]:
        """Describe clips in words.

        Options are those of transformers' `generate` that leave one text for a clip, such as `num_beams=3`, and `seed`
        for those that draw. Without any, the likeliest token is taken at each step, 40 of them at most.

        Raises:
            MintError: audio that cannot be decoded, an unknown option or value of one, or there is no stage 2.
        """
        return self._answer(audio, CAPTION_PROMPT, options)

    @overload
    def ask(self, audio: AudioSource, prompt: str, **options: Any) -> str: ...
    @overload
    def ask(self, audio: list[Any], prompt: str, **options: Any) -> list[str]: ...
    def ask(self, audio: AudioSource | list[Any], prompt: str, **options: Any) -> str | list[str]:
        """Answer an instruction, such as "The genre of this music is"; options and errors as `caption`."""
        prompt = checked_text("the prompt", prompt, "an instruction, such as 'The genre of this music is'")
        return self._answer(audio, prompt, options)

    @overload
    def classify(
        self,
        audio: AudioSource,
        labels: Iterable[str],
        prompt: str | None = None,
        method: Method = "auto",
        scoring: Scoring = "sum",
    ) -> dict[str, float]: ...
    @overload
    def classify(
        self,
        audio: list[Any],
        labels: Iterable[str],
        prompt: str | None = None,
        method: Method = "auto",
        scoring: Scoring = "sum",
    ) -> list[dict[str, float]]: ...
    def classify(
        self,
        audio: AudioSource | list[Any],
        labels: Iterable[str],
        prompt: str | None = None,
        method: Method = "auto",
        scoring: Scoring = "sum",
    ) -> dict[str, float] | list[dict[str, float]]:
        """Score labels of one's choice; a softmax over the scores of a clip gives probabilities among the labels.

        Args:
            audio: clips.
            labels: the candidates: a list, an array, a column of a table or any other iterable of texts.
            prompt: instruction that a label answers; None: "This is a sound of".
            method: `vocabulary`, log-likelihood as the language model's answer (stage 2); `similarity`, to the prompt
                with the label, over the learnt temperature (stage 1); `auto`: vocabulary where there is a stage 2.
            scoring: of vocabulary ranking, see `mint.predict.finish_scores`; `prior` compares the clips of a list.

        Returns:
            Score of each label.

        Raises:
            MintError: audio that cannot be decoded, no labels, an unknown method or scoring, a scoring that the method
                does not have, or the stage is missing.
        """
        # All is checked before a model is loaded, which may take minutes.
        labels = checked_labels(labels)
        prompt = SOUND_PROMPT if prompt is None else checked_text("the prompt", prompt, f"one such as {SOUND_PROMPT!r}")
        for name, value, choices in (("method", method, get_args(Method)), ("scoring", scoring, get_args(Scoring))):
            if not isinstance(value, str) or value not in choices:
                raise MintError(f"{name} is {reprlib.repr(value)}; choose one of {', '.join(choices)}")

        # The mean over the clips would leave nothing of the scores of a single one.
        if scoring == "prior" and not (isinstance(audio, list) and len(audio) > 1):
            raise MintError("scoring 'prior' compares several clips; give a list of at least two, or another scoring")

        if method == "vocabulary" or (method == "auto" and 2 in self.folders):
            scores = self._rank_vocabulary(audio, prompt, labels, scoring)
        elif scoring != "sum":
            raise MintError(
                f"scoring {scoring!r} belongs to the method 'vocabulary', not to 'similarity'; leave it out"
            )
        else:
            scores = self._rank_similarity(audio, [f"{prompt} {label}" for label in labels])

        # scores: [N, C]
        results = [dict(zip(labels, row, strict=True)) for row in scores.tolist()]
        return results if isinstance(audio, list) else results[0]

    def embed_audio(self, audio: AudioSource | list[Any]) -> Tensor:
        """Return clips in the space shared with text, L2-normalised, on the CPU.

        Returns:
            One vector a query: [Q, E], of a list [N, Q, E].

        Raises:
            MintError: audio that cannot be decoded, or there is no stage 1.
        """
        stage = self._load_stage1()

        batches = []
        for clips in self._encoded(audio, stage):
            with _MODELS:
                batches.append(predict.embed_clips(stage, clips).cpu())

        embeddings = torch.cat(batches)  # [N, Q, E]
        return embeddings if isinstance(audio, list) else embeddings[0]

    def embed_text(self, text: str | Iterable[str]) -> Tensor:
        """Return texts in the space shared with audio, L2-normalised, on the CPU.

        Returns:
            [E] of one text; [N, E] of a list, or of any other iterable of texts.

        Raises:
            MintError: no text, something that is no text, or there is no stage 1.
        """
        texts = [text] if isinstance(text, str) else listed("texts", text, "['a dog', 'rain']")
        texts = [checked_text("the text", one, "one, such as 'a dog'") for one in texts]
        stage = self._load_stage1()

        with _MODELS:
            embeddings = predict.embed_texts(stage, texts).cpu()  # [N, E]
        return embeddings[0] if isinstance(text, str) else embeddings

    def search(self, query: str, audio: list[Any]) -> list[tuple[int, float]]:
        """Rank clips by similarity to a description.

        Returns:
            Index in the list and cosine of each clip, the best first.

        Raises:
            MintError: audio that cannot be decoded, audio that is no list, no query, or there is no stage 1.
        """
        query = checked_text("the query", query, "a description, such as 'a loud drum'")
        if isinstance(audio, str | Path | Clip | tuple | dict):  # each of these is one clip everywhere
            raise MintError(f"the clips are {reprlib.repr(audio)}; give a list, such as ['a.wav', 'b.wav']")
        clips = listed("the clips", audio, "['a.wav', 'b.wav']")

        # The text goes first: it takes a moment, and may be refused, where thousands of clips take hours.
        texts = self.embed_text([query])  # [1, E]
        cosines = similarity(self.embed_audio(clips), texts)[:, 0].tolist()
        return sorted(enumerate(cosines), key=lambda scored: -scored[1])

    def save_pretrained(self, folder: str | Path) -> Path:
        """Copy what is needed to use the model, with a model card, into a new folder, and return the folder.

        Raises:
            MintError: the folder holds a model already, or cannot be written to.
        """
        if not isinstance(folder, str | Path):
            raise MintError(f"the folder is {reprlib.repr(folder)}; give a path")

        try:
            return hub.save(self.folders, Path(folder))
        except MintError:
            raise
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            reason = one_line(str(error))
            raise MintError(f"cannot write a model to {str(folder)!r} ({reason}); choose another folder") from error

    def push_to_hub(self, repo: str, private: bool = False) -> str:
        """Upload the model to the Hugging Face hub as `user/name`, and return its address there.

        Raises:
            MintError: no such name can be given, or the hub refuses or cannot be reached.
        """
        repo = checked_text("the repository", repo, "its name on the hub, such as 'user/name'")
        return hub.push(self.folders, repo, private)

    def _answer(self, audio: AudioSource | list[Any], prompt: str, options: dict[str, Any]) -> str | list[str]:
        """Return the answer of one clip, or of each in a list."""
        seed = checked_seed(options.pop("seed", None))
        options = check_options(options)
        stage = self._load_stage2()

        answers: list[str] = []
        for clips in self._encoded(audio, stage):
            with _MODELS:
                answers += _generate(stage, clips, prompt, seed, options)
        return answers if isinstance(audio, list) else answers[0]

    def _rank_vocabulary(
        self, audio: AudioSource | list[Any], prompt: str, labels: Sequence[str], scoring: Scoring
    ) -> Tensor:
        """Return the scores of labels as answers, [N, C]."""
        stage = self._load_stage2()

        sums = []
        counts = torch.empty(0)  # [C], the same for all clips
        for clips in self._encoded(audio, stage):
            with _MODELS:
                some, counts = predict.rank_vocabulary(stage, clips, prompt, labels)
            sums.append(some)

        return finish_scores(torch.cat(sums), counts, scoring)

    def _rank_similarity(self, audio: AudioSource | list[Any], texts: list[str]) -> Tensor:
        """Return the similarities over the temperature, [N, C]."""
        queries = self.embed_audio(audio if isinstance(audio, list) else [audio])  # [N, Q, E]
        cosines = similarity(queries, self.embed_text(texts))  # [N, C]
        return cosines / self._load_stage1().model.temperature.item()

    def _encoded(self, audio: AudioSource | list[Any], stage: TrainedStage[Any]) -> Iterator[list[list[Tensor]]]:
        """Yield clips as lists of windows of frozen features [T, D], some clips at a time."""
        clips = audio if isinstance(audio, list) else [audio]
        if not clips:
            raise MintError("the list of audio is empty; give at least one clip")

        for first in range(0, len(clips), CLIPS_AT_ONCE):
            encoded = []
            for clip in clips[first : first + CLIPS_AT_ONCE]:
                windows = []
                for samples in load_windows(clip, self._encoder.sample_rate, stage.max_seconds):
                    # Other threads decode meanwhile.
                    with _MODELS:
                        windows.append(encode_samples(self._encoder, samples))
                encoded.append(windows)
            yield encoded

    def _load_stage1(self) -> TrainedStage[Stage1]:
        with _MODELS:
            if self._stage1 is None:
                folder = self._folder(1, "embeddings and similarity")
                self._stage1 = self._stage(1, load_stage1(folder))
            return self._stage1

    def _load_stage2(self) -> TrainedStage[Stage2]:
        with _MODELS:
            if self._stage2 is None:
                folder = self._folder(2, "captions, answers and vocabulary ranking")
                language = self._recipes[2].language
                assert language is not None

                frozen = build_language(language, self.device)
                align_weights(frozen.model)  # type: ignore[attr-defined]  # every adapter holds its model
                self._stage2 = self._stage(2, load_stage2(folder, frozen))
            return self._stage2

    def _folder(self, stage: int, purpose: str) -> Path:
        """Return the folder of a stage."""
        if stage not in self.folders:
            other = next(iter(self.folders.values()))
            raise MintError(
                f"{other} is a stage {3 - stage} alone; {purpose} need stage {stage}: train it, or put its "
                f"folder beside it as {other.parent / f'stage{stage}'}"
            )
        return self.folders[stage]

    def _stage(self, number: int, model: Model) -> TrainedStage[Model]:
        """Return a loaded stage on the device, with what its input needs."""
        recipe = self._recipes[number]
        tokenizer = load_tokenizer(self.folders[number])
        align_weights(model)
        return TrainedStage(model.to(self.device), tokenizer, recipe.bridge.max_text_tokens, recipe.data.max_seconds)


def _generate(
    stage: TrainedStage[Stage2], clips: list[list[Tensor]], prompt: str, seed: int | None, options: dict[str, Any]
) -> list[str]:
    """Return the answers of some clips; what an option makes fail is told with the options."""
    try:
        return predict.generate(stage, clips, prompt, seed=seed, **options)
    except (MintError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        # transformers checks some options only when it comes to them, and each raises an error of its own.
        if not options or "can't allocate memory" in str(error):
            raise
        reason = one_line(str(error))
        raise MintError(f"cannot generate with {options}: {reason or type(error).__name__}") from error
