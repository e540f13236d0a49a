"""Timelines: what a model says of a recording of any length, stretch by stretch.

The recording is heard in pieces of one length, which may overlap. Each answer stands for the middle of its piece, as
long as the hop between two pieces, so that the stretches follow each other without a gap; the first and the last one
reach to the ends. Neighbours with the same answer are one stretch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from mint.data.audio.decode import AudioSource
from mint.data.audio.pieces import Piece, pieces
from mint.evaluation.metrics.similarity import similarity
from mint.inference.loading import MODELS, LoadedRun
from mint.inference.questions import Question, answer_each
from mint.predict import embed_clips, embed_texts
from mint.types import Clip


@dataclass(frozen=True)
class Stretch:
    """What a model says of a stretch of a recording."""

    start: float
    """Seconds into the recording."""
    end: float
    answer: str
    score: float | None = None
    """Of a label its mean probability, of a query the cosine; None: the answer has no score."""


class Said(NamedTuple):
    """An answer about one piece."""

    answer: str
    score: float | None = None


def label_question(names: Sequence[str], question: Question[Tensor]) -> Question[Said]:
    """Return the question for the best label and its probability among all, from that for the scores [C]."""

    def ask(clips: list[list[Tensor]]) -> list[Said]:
        said = []
        for scores in question.ask(clips):
            probability, best = scores.softmax(dim=0).max(dim=0)
            said.append(Said(names[int(best)], probability.item()))
        return said

    return Question(question.stage, ask)


def query_question(run: LoadedRun, query: str) -> Question[Said]:
    """Return the question for the cosine of a clip and a description."""
    stage = run.load_stage1()
    with MODELS:
        text = embed_texts(stage, [query]).cpu()  # [1, E]

    def ask(clips: list[list[Tensor]]) -> list[Said]:
        cosines = similarity(embed_clips(stage, clips).cpu(), text)[:, 0]
        return [Said(query, cosine) for cosine in cosines.tolist()]

    return Question(stage, ask)


def stretches(
    run: LoadedRun,
    question: Question[Any],
    audio: AudioSource,
    every: float,
    hop: float,
    merge: bool = True,
) -> Iterator[Stretch]:
    """Yield the stretches of a recording, in order, each once it is known where it ends.

    Args:
        run: the models.
        question: what they are asked about each piece; a text, or a `Said`.
        audio: the recording.
        every: length of a piece in seconds.
        hop: seconds from the beginning of one piece to that of the next.
        merge: whether neighbours with the same answer are one stretch.

    Raises:
        MintError: as `pieces`.
    """
    waiting: deque[Piece] = deque()  # pieces that were not answered yet

    def clips() -> Iterator[Clip]:
        for piece in pieces(audio, run.encoder.sample_rate, every, hop):
            # The samples go with the clip, and are not kept here.
            waiting.append(piece._replace(samples=piece.samples[:0]))
            yield Clip(piece.samples, run.encoder.sample_rate)

    # The stretch that may still grow, and the scores of its pieces.
    begin, current, scores = 0.0, Said(""), [0.0]
    end = 0.0
    with closing(answer_each(run, question, clips())) as answers:
        # Answers come in the order of the pieces.
        for index, answer in enumerate(answers):
            value, piece = answer.get(), waiting.popleft()
            said = value if isinstance(value, Said) else Said(value)
            start = 0.0 if index == 0 else piece.start + (every - hop) / 2
            if index == 0 or said.answer != current.answer or not merge:
                if index:
                    yield _stretch(begin, start, current, scores)
                begin, current, scores = start, said, []
            if said.score is not None:
                scores.append(said.score)
            end = piece.end

    # The last stretch ends with the recording.
    yield _stretch(begin, end, current, scores)


def _stretch(start: float, end: float, said: Said, scores: list[float]) -> Stretch:
    return Stretch(start, end, said.answer, sum(scores) / len(scores) if scores else None)
