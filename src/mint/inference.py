"""The class `Mint`: what a user of a trained model calls.

Wires audio of any form to the predictions of `mint.evaluation.predict`, so that a model says of a file what it said of
it in evaluation. Long clips are heard through evenly spaced windows, one in memory at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args, overload

import torch
from huggingface_hub import snapshot_download
from torch import Tensor, nn

from mint import hub as share
from mint import predict
from mint.builders.encoder import build_encoder
from mint.builders.language import build_language
from mint.builders.stages import load_stage1, load_stage2
from mint.config import Recipe
from mint.data.audio.decode import AudioSource, load_windows
from mint.data.features.cache import encode_samples
from mint.data.manifests.prompts import SOUND_PROMPT
from mint.evaluation.metrics.similarity import similarity
from mint.model.stage1 import Stage1
from mint.model.stage2 import Stage2
from mint.predict import Scoring, finish_scores
from mint.run_folder import check_frozen, find_stages, load_run_recipe, load_tokenizer
from mint.types import CAPTION_PROMPT, AudioEncoder, MintError

Method = Literal["auto", "vocabulary", "similarity"]
Model = TypeVar("Model", Stage1, Stage2)

CLIPS_AT_ONCE = 32
"""Clips whose features are in memory together."""


@dataclass(frozen=True)
class Stage(Generic[Model]):
    """A trained stage with what its input needs."""

    model: Model
    tokenizer: Any
    max_tokens: int
    max_seconds: float


class Mint:
    """A trained model: stage 1 (embeddings, similarity), stage 2 (text), or both.

    `audio` is everywhere a path, a `Clip` or (samples, rate in Hz), in any format, rate and number of channels; or a
    list of these. One clip gives one result, a list gives a list. Stages are loaded when they are first needed: what
    asks stage 1 alone never loads the language model.

    Args:
        folders: folder of each finished stage, by stage.
        device: of the models.

    Raises:
        MintError: the encoder here is not the one that the run was trained with.
    """

    def __init__(self, folders: dict[int, Path], device: torch.device | str = "cpu") -> None:
        self.folders = folders
        self.device = torch.device(device)
        self._recipes: dict[int, Recipe] = {n: load_run_recipe(path) for n, path in folders.items()}
        self._stage1: Stage[Stage1] | None = None
        self._stage2: Stage[Stage2] | None = None
        stage, folder = next(iter(folders.items()))
        self._encoder: AudioEncoder = build_encoder(self._recipes[stage].encoder, self.device)
        check_frozen(folder, "encoder", self._encoder.identity)

    @classmethod
    def from_pretrained(cls, run_or_repo: str | Path) -> Mint:
        """Load a finished run, on the accelerator where there is one.

        Args:
            run_or_repo: folder of a run (with `stage1` and `stage2`, or one of these itself), or its name on the hub.

        Raises:
            MintError: no such folder or name, or no finished run there.
        """
        folder = Path(run_or_repo).expanduser()
        if not folder.exists():
            folder = _download(str(run_or_repo))
        return cls(find_stages(folder), "cuda" if torch.cuda.is_available() else "cpu")

    def to(self, device: torch.device | str) -> Mint:
        """Move to a device, such as "cuda:1"; what is not loaded yet will be loaded there."""
        self.device = torch.device(device)
        if isinstance(self._encoder, nn.Module):
            self._encoder.to(self.device)
        if self._stage1 is not None:
            self._stage1.model.to(self.device)
        self._stage2 = None  # with its language model
        return self

    @overload
    def caption(self, audio: AudioSource, **options: Any) -> str: ...
    @overload
    def caption(self, audio: list[Any], **options: Any) -> list[str]: ...
    def caption(self, audio: AudioSource | list[Any], **options: Any) -> str | list[str]:
        """Describe clips in words.

        Options are those of transformers' `generate`, such as `num_beams=3`, and `seed` for those that draw.

        Raises:
            MintError: audio that cannot be decoded, an option that does not exist, or there is no stage 2.
        """
        return self.ask(audio, CAPTION_PROMPT, **options)

    @overload
    def ask(self, audio: AudioSource, prompt: str, **options: Any) -> str: ...
    @overload
    def ask(self, audio: list[Any], prompt: str, **options: Any) -> list[str]: ...
    def ask(self, audio: AudioSource | list[Any], prompt: str, **options: Any) -> str | list[str]:
        """Answer an instruction, such as "The genre of this music is"; options and errors as `caption`."""
        stage = self._load_stage2()
        if not prompt.strip():
            raise MintError(f"the prompt is {prompt!r}; give an instruction, such as 'The genre of this music is'")
        answers: list[str] = []
        for clips in self._encoded(audio, stage):
            try:
                answers += predict.generate(stage.model, stage.tokenizer, clips, prompt, stage.max_tokens, **options)
            except (TypeError, ValueError) as error:
                if isinstance(error, MintError) or not options:
                    raise
                raise MintError(f"cannot generate with {options}: {' '.join(str(error).split())}") from None
        return answers if isinstance(audio, list) else answers[0]

    @overload
    def classify(
        self,
        audio: AudioSource,
        labels: Sequence[str],
        prompt: str | None = None,
        method: Method = "auto",
        scoring: Scoring = "sum",
    ) -> dict[str, float]: ...
    @overload
    def classify(
        self,
        audio: list[Any],
        labels: Sequence[str],
        prompt: str | None = None,
        method: Method = "auto",
        scoring: Scoring = "sum",
    ) -> list[dict[str, float]]: ...
    def classify(
        self,
        audio: AudioSource | list[Any],
        labels: Sequence[str],
        prompt: str | None = None,
        method: Method = "auto",
        scoring: Scoring = "sum",
    ) -> dict[str, float] | list[dict[str, float]]:
        """Score labels of one's choice; a softmax over the scores of a clip gives probabilities among the labels.

        Args:
            audio: clips.
            labels: the candidates.
            prompt: instruction that a label answers; None: "This is a sound of".
            method: `vocabulary`, log-likelihood as the language model's answer (stage 2); `similarity`, to the prompt
                with the label, over the learnt temperature (stage 1); `auto`: vocabulary where there is a stage 2.
            scoring: of vocabulary ranking, see `mint.evaluation.vocabulary`; `prior` compares the clips of a list.

        Returns:
            Score of each label.

        Raises:
            MintError: audio that cannot be decoded, no labels, an unknown method or scoring, or the stage is missing.
        """
        labels = _checked_labels(labels)
        prompt = SOUND_PROMPT if prompt is None else prompt
        for name, value, choices in (("method", method, get_args(Method)), ("scoring", scoring, get_args(Scoring))):
            if value not in choices:
                raise MintError(f"{name} is {value!r}; choose one of {', '.join(choices)}")
        if scoring == "prior" and not (isinstance(audio, list) and len(audio) > 1):
            raise MintError("scoring 'prior' compares several clips; give a list of at least two, or another scoring")
        if method == "vocabulary" or (method == "auto" and 2 in self.folders):
            scores = self._rank_vocabulary(audio, prompt, labels, scoring)
        else:
            scores = self._rank_similarity(audio, [f"{prompt} {label}" for label in labels])
        results = [dict(zip(labels, row, strict=True)) for row in scores.tolist()]
        return results if isinstance(audio, list) else results[0]

    def embed_audio(self, audio: AudioSource | list[Any]) -> Tensor:
        """Clips in the space shared with text, one vector a query: [Q, E], of a list [N, Q, E]; L2-normalised, on CPU.

        Raises:
            MintError: audio that cannot be decoded, or there is no stage 1.
        """
        stage = self._load_stage1()
        parts = [predict.embed_clips(stage.model, clips).cpu() for clips in self._encoded(audio, stage)]
        embeddings = torch.cat(parts)
        return embeddings if isinstance(audio, list) else embeddings[0]

    def embed_text(self, text: str | list[str]) -> Tensor:
        """Texts in the space shared with audio: [E], of a list [N, E]; L2-normalised, on CPU.

        Raises:
            MintError: an empty list, or there is no stage 1.
        """
        stage = self._load_stage1()
        texts = text if isinstance(text, list) else [text]
        if not texts:
            raise MintError("the list of texts is empty; give at least one")
        embeddings = predict.embed_texts(stage.model, stage.tokenizer, texts, stage.max_tokens).cpu()
        return embeddings if isinstance(text, list) else embeddings[0]

    def search(self, query: str, audio: list[Any]) -> list[tuple[int, float]]:
        """Rank clips by similarity to a description: (place in the list, cosine), the best first; errors as above."""
        scores = similarity(self.embed_audio(list(audio)), self.embed_text([query]))[:, 0].tolist()
        return sorted(enumerate(scores), key=lambda scored: -scored[1])

    def save_pretrained(self, folder: str | Path) -> Path:
        """Copy what is needed to use the model, with a model card, into a new folder.

        Raises:
            MintError: the folder holds a model already.
        """
        return share.save(self.folders, Path(folder))

    def push_to_hub(self, repo: str, private: bool = False) -> str:
        """Upload the model to the Hugging Face hub as `user/name`; returns its address there."""
        return share.push(self.folders, repo, private)

    def _rank_vocabulary(
        self, audio: AudioSource | list[Any], prompt: str, labels: Sequence[str], scoring: Scoring
    ) -> Tensor:
        """Scores [N, C]."""
        stage = self._load_stage2()
        ranked = [
            predict.rank_vocabulary(stage.model, stage.tokenizer, clips, prompt, labels, stage.max_tokens)
            for clips in self._encoded(audio, stage)
        ]
        return finish_scores(torch.cat([sums for sums, _ in ranked]), ranked[0][1], scoring)

    def _rank_similarity(self, audio: AudioSource | list[Any], texts: list[str]) -> Tensor:
        """Similarities over temperature [N, C]."""
        clips = self.embed_audio(audio if isinstance(audio, list) else [audio])
        return similarity(clips, self.embed_text(texts)) / self._load_stage1().model.temperature.item()

    def _encoded(self, audio: AudioSource | list[Any], stage: Stage[Any]) -> Iterator[list[list[Tensor]]]:
        """Clips as windows of frozen features [T, D], some clips at a time."""
        clips = audio if isinstance(audio, list) else [audio]
        if not clips:
            raise MintError("the list of audio is empty; give at least one clip")
        for first in range(0, len(clips), CLIPS_AT_ONCE):
            yield [
                [
                    encode_samples(self._encoder, window)
                    for window in load_windows(clip, self._encoder.sample_rate, stage.max_seconds)
                ]
                for clip in clips[first : first + CLIPS_AT_ONCE]
            ]

    def _load_stage1(self) -> Stage[Stage1]:
        if self._stage1 is None:
            folder = self._folder(1, "embeddings and similarity")
            self._stage1 = self._stage(1, load_stage1(folder))
        return self._stage1

    def _load_stage2(self) -> Stage[Stage2]:
        if self._stage2 is None:
            folder, language = self._folder(2, "captions, answers and vocabulary ranking"), self._recipes[2].language
            assert language is not None
            self._stage2 = self._stage(2, load_stage2(folder, build_language(language, self.device)))
        return self._stage2

    def _folder(self, stage: int, purpose: str) -> Path:
        if stage not in self.folders:
            there = next(iter(self.folders.values()))
            raise MintError(
                f"{there} is a stage {3 - stage} alone; {purpose} need stage {stage}: train it, or put its "
                f"folder beside it as {there.parent / f'stage{stage}'}"
            )
        return self.folders[stage]

    def _stage(self, number: int, model: Model) -> Stage[Model]:
        recipe = self._recipes[number]
        tokenizer = load_tokenizer(self.folders[number])
        return Stage(model.to(self.device), tokenizer, recipe.bridge.max_text_tokens, recipe.data.max_seconds)


def _checked_labels(labels: Sequence[str]) -> list[str]:
    if isinstance(labels, str) or not all(isinstance(label, str) and label.strip() for label in labels):
        raise MintError(f"labels are {labels!r}; give a list of texts, such as ['dog', 'rain']")
    if not labels:
        raise MintError("the list of labels is empty; give at least one")
    return list(dict.fromkeys(labels))


def _download(name: str) -> Path:
    """A model of the hub, in its cache folder."""
    missing = f"no such folder: {name!r}; give the folder of a finished run, or a name on the hub (user/model)"
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise MintError(missing)
    try:
        return Path(snapshot_download(name))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise MintError(f"{missing}, which could not be fetched ({reason})") from None
