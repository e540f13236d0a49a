"""Audio-text retrieval with stage 1 (paper, section 4.1 and Table 3); its matching head may re-rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from mint import predict
from mint.evaluation.metrics.retrieval import retrieve
from mint.evaluation.metrics.similarity import similarity
from mint.evaluation.records import Evaluation, Setup, SimilarityMap, measured_part
from mint.evaluation.results.measures import chance_retrieval_rows, retrieval_measures
from mint.evaluation.steps import Step
from mint.types import Example

SHOWN = 16
"""Clips and captions in the similarity map."""


def retrieval_steps(setup: Setup, examples: Sequence[Example]) -> Iterator[Step]:
    """Yield the step that ranks clips by captions and captions by clips; each clip has at least one caption."""
    yield Step("retrieval", _retrieve(setup, examples))


def _retrieve(setup: Setup, examples: Sequence[Example]) -> Iterator[Evaluation]:
    stage1 = setup.trained.stage1
    assert stage1 is not None
    captions: list[str] = []
    owners: list[int] = []
    first_of_clip: list[int] = []
    for clip, example in enumerate(examples):
        first_of_clip.append(len(captions))
        captions += example.captions
        owners += [clip] * len(example.captions)

    clips = setup.windows(1, examples)
    queries = predict.embed_clips(stage1, clips)  # [N, Q, E]
    texts = predict.embed_texts(stage1, captions)  # [M, E]
    owner = torch.tensor(owners)  # [M]
    retrieval = retrieve(queries, texts, owner)
    yield measured_part(retrieval_measures(examples, retrieval, "stage1"), examples, setup.seed)
    yield Evaluation(rows=chance_retrieval_rows(retrieval))

    first = first_of_clip[:SHOWN]
    shown = SimilarityMap(
        "Held-out clips and their captions",
        [example.id for example in examples[:SHOWN]],
        [captions[index] for index in first],
        similarity(queries[:SHOWN], texts[first]).cpu().numpy(),
        list(range(len(first))),
    )
    yield Evaluation(similarities=[shown])

    if stage1.model.alm and setup.settings.reranked is not None:
        retrieval = retrieve(
            queries,
            texts,
            owner,
            reranker=predict.Matcher(stage1, clips, captions),
            temperature=stage1.model.temperature.item(),
            top=setup.settings.reranked,
        )
        yield measured_part(retrieval_measures(examples, retrieval, "stage1+alm"), examples, setup.seed)
