"""Questions: what a trained model is asked about clips, one clip after another, and the answers.

Every verb of `Mint` is a question. The clips are decoded in threads ahead of the models and asked in small groups, so
that answers come one by one, in order, from any number of clips in bounded memory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor

from mint import predict
from mint.builders.stages import TrainedStage
from mint.data.features.cache import FeatureCache
from mint.data.features.stream import ClipFeatures, Source, stream_features
from mint.evaluation.metrics.similarity import similarity
from mint.inference.loading import MODELS, LoadedRun
from mint.language.options import check_options
from mint.model.stage2 import Stage2
from mint.predict import Scoring
from mint.text_files import one_line
from mint.types import MintError
from mint.user_input import checked_seed

Result = TypeVar("Result", covariant=True)
Method = Literal["auto", "vocabulary", "similarity"]

WINDOWS_AT_ONCE = 32
"""Windows whose features are in memory together, and are asked about together; a clip's own stay together."""


@dataclass(frozen=True)
class Answer(Generic[Result]):
    """What a model says of one clip, or the reason why it could not be asked."""

    audio: Source
    """The clip as it was given."""
    value: Result | None
    error: Exception | None = None
    """A `MintError` or `OSError` about the clip; None: there is a value."""

    def get(self) -> Result:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.value is not None
        return self.value


@dataclass(frozen=True)
class Question(Generic[Result]):
    """What a stage is asked about clips."""

    stage: TrainedStage[Any]
    ask: Callable[[list[list[Tensor]]], list[Result]]
    """Takes the windows [T, D] of N clips and returns N results."""


def answer_each(
    run: LoadedRun,
    question: Question[Result],
    audio: Iterable[Source],
    growing: bool = True,
    cache: FeatureCache | None = None,
    keep: bool = False,
) -> Generator[Answer[Result], None, None]:
    """Yield an answer for each clip, in order; a clip that cannot be used is answered with its error.

    Args:
        run: the models.
        question: what they are asked.
        audio: the clips; any iterable, which is read a little ahead.
        growing: whether the first groups are small, so that the first answers come early.
        cache: where features are looked up; None: nowhere.
        keep: whether features that were not in the cache are written to it.
    """
    features = stream_features(audio, run.encoder, question.stage.max_seconds, cache, keep, MODELS)
    # Whoever stops early leaves no thread behind.
    with closing(features):
        for group in _groups(features, growing):
            usable = [clip.windows for clip in group if clip.error is None]
            # Other threads load and compute between the groups.
            with MODELS:
                results = iter(question.ask(usable) if usable else [])
            for clip in group:
                yield Answer(clip.source, None if clip.error else next(results), clip.error)


def _groups(clips: Iterable[ClipFeatures], growing: bool) -> Iterator[list[ClipFeatures]]:
    """Yield neighbouring clips that are asked about together."""
    size = 1 if growing else WINDOWS_AT_ONCE
    group: list[ClipFeatures] = []

    for clip in clips:
        group.append(clip)
        # Clips of many windows make smaller groups, so that memory stays bounded.
        if sum(len(one.windows) for one in group) >= size:
            yield group
            group, size = [], min(2 * size, WINDOWS_AT_ONCE)
    if group:
        yield group


def text_question(run: LoadedRun, prompt: str, options: dict[str, Any]) -> Question[str]:
    """Return the question for a text that answers a prompt.

    Args:
        run: the models.
        prompt: the instruction.
        options: those of transformers' `generate`, and `seed`.

    Raises:
        MintError: an unknown option or value of one, or there is no stage 2.
    """
    options = dict(options)
    seed = checked_seed(options.pop("seed", None))
    options = check_options(options)
    stage = run.load_stage2()

    def ask(clips: list[list[Tensor]]) -> list[str]:
        # What is drawn for a clip depends on the seed, and not on the clips beside it.
        if seed is not None and options.get("do_sample"):
            return [_generate(stage, [clip], prompt, seed, options)[0] for clip in clips]
        return _generate(stage, clips, prompt, seed, options)

    return Question(stage, ask)


def vocabulary_question(run: LoadedRun, prompt: str, labels: list[str], scoring: Scoring | None) -> Question[Tensor]:
    """Return the question for the scores [C] of labels as answers of the language model; `prior` is left undone.

    Raises:
        MintError: the run has no reference clips for the scoring `calibrated`, or there is no stage 2.
    """
    stage = run.load_stage2()
    if scoring == "calibrated":
        # Now, so that a run without reference clips is refused before any clip is decoded.
        with MODELS:
            predict.label_bias(stage, prompt, labels)

    def ask(clips: list[list[Tensor]]) -> list[Tensor]:
        scores = predict.score_labels(stage, clips, prompt, labels, "sum" if scoring == "prior" else scoring)  # [N, C]
        return list(scores.cpu())

    return Question(stage, ask)


def similarity_question(run: LoadedRun, texts: list[str]) -> Question[Tensor]:
    """Return the question for the similarities [C] of a clip to texts, over the temperature."""
    stage = run.load_stage1()
    # The texts are the same for all clips.
    with MODELS:
        embedded = predict.embed_texts(stage, texts).cpu()  # [C, E]
        temperature = stage.model.temperature.item()

    def ask(clips: list[list[Tensor]]) -> list[Tensor]:
        return list(similarity(predict.embed_clips(stage, clips).cpu(), embedded) / temperature)

    return Question(stage, ask)


def embedding_question(run: LoadedRun) -> Question[Tensor]:
    """Return the question for the embeddings [Q, E] of clips, on the CPU."""
    stage = run.load_stage1()
    return Question(stage, lambda clips: list(predict.embed_clips(stage, clips).cpu()))


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
