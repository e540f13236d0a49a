"""What the models are asked for requests, several at once: texts, scores of labels, embeddings, attention.

Questions that are equal may share a batch. A batch holds clips of any length beside each other, and the answers are
those that each clip would have had alone, but for the last digits of floating-point numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mint import predict
from mint.data.features.encode import encode_batch
from mint.evaluation.metrics.similarity import similarity
from mint.evaluation.report.attention import clip_attention, over_time
from mint.types import MintError

if TYPE_CHECKING:
    from mint.inference import Mint

ROWS_AT_ONCE = 32
"""Windows or texts of a batch."""
SECONDS_AT_ONCE = 60
"""Seconds of sound, padding included, that the encoder takes at once."""


@dataclass(frozen=True)
class Sampling:
    """How the tokens of a text are drawn."""

    temperature: float
    top_p: float
    seed: int | None


@dataclass(eq=False)
class Job:
    """One question about one clip or some texts, which waits for its answer."""

    question: Question
    windows: Sequence[Any] = ()
    """Waveforms [S] of the clip, at the encoder's rate."""
    prompt: str = ""
    texts: Sequence[str] = ()
    max_tokens: int = 0
    on_text: Callable[[str], None] | None = None
    """Takes what was written so far, each time that there is more."""
    answer: Future[Any] = field(default_factory=Future)
    is_gone: bool = False
    """Nobody waits for the answer any more."""
    is_cut: bool = False
    """The text reached its longest length before it ended."""

    @property
    def size(self) -> int:
        """Rows that the question takes in a batch."""
        return max(len(self.windows), len(self.texts), 1)


@dataclass(frozen=True)
class Question:
    """What is asked; equal questions may share a batch."""

    name: ClassVar[str]

    def ask(self, run: Mint, jobs: Sequence[Job]) -> list[Any]:
        """Return an answer for each job, or the error that it gets in place of one."""
        raise NotImplementedError


@dataclass(frozen=True)
class Write(Question):
    """A text that answers each job's prompt."""

    name: ClassVar[str] = "text"
    sampling: Sampling | None = None
    """None: the likeliest token at each step."""
    alone: object = None
    """Of drawn texts: an object of its own, as draws must not depend on what stands beside them."""

    def ask(self, run: Mint, jobs: Sequence[Job]) -> list[Any]:
        """Return texts."""
        stage = run.load_stage2()
        options: dict[str, Any] = {"max_new_tokens": max(job.max_tokens for job in jobs)}
        seed = None
        if self.sampling is not None:
            drawn = self.sampling
            options |= {"do_sample": True, "temperature": drawn.temperature, "top_p": drawn.top_p, "top_k": 0}
            seed = drawn.seed

        def ask(clips: list[list[Tensor]], asked: list[Job]) -> list[str]:
            prompts = [job.prompt for job in asked]
            text_of = stage.model.language.text_of
            return predict.generate(
                stage,
                clips,
                prompts,
                batch_size=ROWS_AT_ONCE,
                seed=seed,
                watching=lambda rows: Watch(rows, asked, text_of),
                **options,
            )

        return _with_features(run, jobs, ask)


class Watch:
    """Follows the tokens of one batch: passes texts on, and ends what is long enough or nobody waits for.

    Args:
        owners: the job of each row, as an index; a clip of several windows has several rows.
        jobs: the jobs.
        text_of: turns tokens into text.
    """

    def __init__(self, owners: Sequence[int], jobs: Sequence[Job], text_of: Callable[[Sequence[int]], str]) -> None:
        self._jobs = [jobs[owner] for owner in owners]
        self._text_of = text_of
        self._tokens: list[list[int]] = [[] for _ in owners]

    def __call__(self, row: int, token: int) -> bool:
        """Take in the next token of a row, and return whether the row goes on."""
        job, tokens = self._jobs[row], self._tokens[row]
        tokens.append(token)

        # Of several windows, the text that fits all is chosen at the end.
        if job.on_text is not None and len(job.windows) == 1 and not job.is_gone:
            text = self._text_of(tokens)
            if not text.endswith("\ufffd"):  # the rest of a character is still to come
                job.on_text(text)

        if len(tokens) >= job.max_tokens:
            job.is_cut = True
            return False
        return not job.is_gone


@dataclass(frozen=True)
class RankByLanguage(Question):
    """Scores of labels as answers to each job's prompt, those of `Mint.classify`."""

    name: ClassVar[str] = "labels"
    labels: tuple[str, ...]

    def ask(self, run: Mint, jobs: Sequence[Job]) -> list[Any]:
        """Return scores [C] as lists."""
        stage = run.load_stage2()

        def ask(clips: list[list[Tensor]], asked: list[Job]) -> list[list[float]]:
            prompts = [job.prompt for job in asked]
            return predict.score_labels(stage, clips, prompts, self.labels).tolist()

        return _with_features(run, jobs, ask)


@dataclass(frozen=True)
class RankBySimilarity(Question):
    """Similarities to texts, over the learnt temperature."""

    name: ClassVar[str] = "similarity"
    texts: tuple[str, ...]

    def ask(self, run: Mint, jobs: Sequence[Job]) -> list[Any]:
        """Return scores [C] as lists."""
        stage = run.load_stage1()
        texts = predict.embed_texts(stage, self.texts)  # [C, E]

        def ask(clips: list[list[Tensor]], asked: list[Job]) -> list[list[float]]:
            cosines = similarity(predict.embed_clips(stage, clips), texts)  # [N, C]
            return (cosines / stage.model.temperature.item()).tolist()

        return _with_features(run, jobs, ask)


@dataclass(frozen=True)
class EmbedClips(Question):
    """Embeddings of clips."""

    name: ClassVar[str] = "clip_embedding"

    def ask(self, run: Mint, jobs: Sequence[Job]) -> list[Any]:
        """Return [Q, E] on the CPU for each job."""
        stage = run.load_stage1()
        return _with_features(run, jobs, lambda clips, _: list(predict.embed_clips(stage, clips).cpu()))


@dataclass(frozen=True)
class EmbedTexts(Question):
    """Embeddings of texts."""

    name: ClassVar[str] = "text_embedding"

    def ask(self, run: Mint, jobs: Sequence[Job]) -> list[Any]:
        """Return [number of texts, E] on the CPU for each job."""
        texts: list[str] = []
        for job in jobs:
            texts += job.texts
        embedded = predict.embed_texts(run.load_stage1(), texts).cpu()
        return list(embedded.split([len(job.texts) for job in jobs]))


@dataclass(frozen=True)
class Attend(Question):
    """Where each query listens in the first window of a clip."""

    name: ClassVar[str] = "attention"

    def ask(self, run: Mint, jobs: Sequence[Job]) -> list[Any]:
        """Return [Q, steps] for each job; a row sums to 1."""
        stage = run.load_stage2() if 2 in run.folders else run.load_stage1()

        def ask(clips: list[list[Tensor]], asked: list[Job]) -> list[Tensor]:
            weights = []
            for clip, job in zip(clips, asked, strict=True):
                one = clip_attention(stage.model, stage.tokenizer, clip[0], job.prompt, stage.max_tokens)
                weights.append(over_time(one, run.encoder.bands))
            return weights

        return _with_features(run, jobs, ask)


def _with_features(
    run: Mint, jobs: Sequence[Job], ask: Callable[[list[list[Tensor]], list[Job]], Sequence[Any]]
) -> list[Any]:
    """Call `ask` with the features of the clips; jobs whose features are of no use get an error, and are left out."""
    features = _encode(run, jobs)
    clips: list[list[Tensor]] = []
    asked: list[Job] = []

    for job, windows in zip(jobs, features, strict=True):
        if all(bool(window.isfinite().all()) for window in windows):
            clips.append(windows)
            asked.append(job)

    answers = dict(zip(asked, ask(clips, asked) if asked else [], strict=True))
    refused = MintError("the encoder gives no finite features for this sound; export it again")
    return [answers.get(job, refused) for job in jobs]


def _encode(run: Mint, jobs: Sequence[Job]) -> list[list[Tensor]]:
    """Return the windows [T, D] of each job's clip."""
    windows = []
    for owner, job in enumerate(jobs):
        for index, samples in enumerate(job.windows):
            windows.append((owner, index, samples))
    # Those of similar length stand together, so that little is computed for padding.
    windows.sort(key=lambda window: len(window[2]))

    features: list[list[Tensor]] = [[torch.empty(0)] * len(job.windows) for job in jobs]
    most = SECONDS_AT_ONCE * run.encoder.sample_rate
    while windows:
        # The last of a batch is its longest.
        count = 1

        while count < len(windows) and (count + 1) * len(windows[count][2]) <= most:
            count += 1
        batch, windows = windows[:count], windows[count:]

        encoded = encode_batch(run.encoder, [samples for _, _, samples in batch])
        for (owner, index, _), one in zip(batch, encoded, strict=True):
            features[owner][index] = one
    return features
