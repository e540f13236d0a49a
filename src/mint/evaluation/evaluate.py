"""Evaluation of trained stages on held-out clips, with the baselines beside them (paper, sections 3.3 and 4).

Closed-set tasks: vocabulary ranking with stage 2, similarity ranking with stage 1, a linear probe on the same frozen
features, the majority class and chance, all on the same clips. Retrieval with stage 1, captioning with stage 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
import torch
from sklearn.metrics import confusion_matrix
from tqdm.auto import tqdm

from mint import predict
from mint.data.features.prepare import Features
from mint.evaluation.metrics import probe, sentences
from mint.evaluation.metrics.calibration import calibrate
from mint.evaluation.metrics.captions import REPORTED, CaptionScore, names_label, score_captions
from mint.evaluation.metrics.retrieval import Retrieval, retrieve
from mint.evaluation.metrics.similarity import ensemble, similarity
from mint.evaluation.report.attention import clip_attention
from mint.evaluation.report.page import Confusion, Reliability, SimilarityMap
from mint.evaluation.results import rows
from mint.evaluation.results.file import Row
from mint.evaluation.results.per_clip import PerClip, clip_ids, of_accuracy, of_labels, of_retrieval
from mint.evaluation.settings import QUICK, Settings
from mint.model.stage1 import Stage1
from mint.model.stage2 import Stage2
from mint.predict import Matcher, finish_scores
from mint.types import CAPTION_PROMPT, Example, MintError

HELD_OUT = ("test", "unseen")
SENTENCES = "sentence_similarity"
SHOWN = 16
"""Clips and captions in the similarity map."""
LOOKED_INTO = 4
"""Clips of each task and split whose attention is kept for the report."""


@dataclass(frozen=True)
class Trained:
    """The stages of a run, and Bridge-Net's tokenizer."""

    stage1: Stage1 | None
    stage2: Stage2 | None
    tokenizer: Any
    max_tokens: int


class Clips(Sequence[predict.Windows]):
    """The windows of clips, read from the features when they are asked for."""

    def __init__(self, examples: Sequence[Example], features: Features) -> None:
        self.examples = examples
        self.features = features

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, place: int) -> predict.Windows: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[predict.Windows]: ...
    def __getitem__(self, place: int | slice) -> predict.Windows | Sequence[predict.Windows]:
        """The windows of one clip, or some clips."""
        if isinstance(place, slice):
            return Clips(self.examples[place], self.features)
        return self.features.windows(self.examples[place])


@dataclass(frozen=True)
class Prediction:
    """What stage 2 said of one clip of a closed-set task."""

    example: Example
    predicted: str
    margin: float
    """Log-likelihood of the prediction above that of the true label; 0 where it is right."""


@dataclass
class Evaluation:
    """What was measured, and what a report shows of it."""

    rows: list[Row] = field(default_factory=list)
    confusions: list[Confusion] = field(default_factory=list)
    similarities: list[SimilarityMap] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    calibrations: list[Reliability] = field(default_factory=list)
    attentions: list[tuple[Example, torch.Tensor]] = field(default_factory=list)
    """Clips and the attention [Q, T] of stage 2's queries in their first window."""
    captions: list[tuple[Example, str]] = field(default_factory=list)
    per_clip: list[PerClip] = field(default_factory=list)
    not_computed: dict[str, str] = field(default_factory=dict)


def evaluate(
    trained: Trained,
    examples: Sequence[Example],
    features: Features,
    *,
    tasks: Sequence[str] | None = None,
    settings: Settings = QUICK,
    seed: int = 0,
) -> Evaluation:
    """Measure the tasks of the examples.

    Args:
        trained: the stages; a missing one leaves its columns empty.
        examples: of all splits; those of `train` and `validation` serve the probe.
        features: of the examples.
        tasks: which ones: those of the examples, `retrieval`, `captioning`; None: all that there are.
        settings: scoring, decoding, and of how many clips; as in the quickstart unless given.
        seed: of the choice of clips and of the bootstrap.

    Raises:
        MintError: an unknown task, or one without a held-out clip.
    """
    usable = [example for example in examples if features.has(example)]
    labelled = [example for example in usable if example.labels or example.unknown]
    closed = list(dict.fromkeys(example.task for example in labelled))
    known = [*closed, "retrieval", "captioning"]
    for task in tasks or ():
        if task not in known:
            raise MintError(f"no task {task!r} in these manifests; there is {', '.join(known)}")
    captioned = [example for example in usable if example.captions and example.split == "test"]
    evaluation = Evaluation()
    for task in closed:
        if tasks is None or task in tasks:
            _closed_set(evaluation, trained, [e for e in labelled if e.task == task], features, settings, seed)
    if trained.stage1 is not None and captioned and (tasks is None or "retrieval" in tasks):
        _retrieval(evaluation, trained, _draw(captioned, settings.retrieved_clips, seed), features, settings, seed)
    if trained.stage2 is not None and captioned and (tasks is None or "captioning" in tasks):
        _captioning(evaluation, trained, _draw(captioned, settings.captioned_clips, seed), features, settings, seed)
    if not evaluation.rows:
        _name_what_lacks(tasks or (), trained, captioned)
        raise MintError("nothing to evaluate: the manifests have no usable clip in the splits test or unseen")
    return evaluation


def _name_what_lacks(tasks: Sequence[str], trained: Trained, captioned: Sequence[Example]) -> None:
    """Why none of the tasks that are asked for by name could be measured, where it is the run or the captions."""
    for number, task, stage in ((1, "retrieval", trained.stage1), (2, "captioning", trained.stage2)):
        if task in tasks and stage is None:
            raise MintError(
                f"{task} needs stage {number}, which this run does not have; train it, or leave the task out"
            )
        if task in tasks and not captioned:
            raise MintError(f"{task} needs captions, and no usable clip of the split test has one; check the manifests")


def _closed_set(
    evaluation: Evaluation,
    trained: Trained,
    examples: Sequence[Example],
    features: Features,
    settings: Settings,
    seed: int,
) -> None:
    """One task with a list of labels, one or many a clip."""
    labels = sorted({label for example in examples for label in (*example.labels, *example.unknown)})
    trained_on = _truth([e for e in examples if e.split == "train"], labels)
    single = all(len(example.labels) == 1 and not example.unknown for example in examples)
    fitted = _fit_probe(examples, labels, features, single)
    for split in HELD_OUT:
        held_out = [example for example in examples if example.split == split]
        if not held_out:
            continue
        place: dict[str, Any] = {"task": examples[0].task, "split": split}
        truth, known = _truth(held_out, labels), _known(held_out, labels)
        scores = _all_scores(trained, held_out, features, labels, settings)
        if fitted is not None:
            scores["probe"] = fitted.scores(_pooled(held_out, features))
        if single:
            wanted = truth.argmax(axis=1)
            if len(trained_on):
                scores["majority"] = probe.majority_scores(trained_on.argmax(axis=1), len(held_out), len(labels))
            for method, values in scores.items():
                evaluation.rows += rows.accuracy_rows(values, wanted, **place, method=method, seed=seed)
            evaluation.rows += rows.chance_accuracy_rows(wanted, len(labels), **place)
            evaluation.per_clip.append(of_accuracy(held_out, scores, wanted))
            if "stage2" in scores:
                _keep_predictions(evaluation, held_out, scores["stage2"], wanted, labels)
                _keep_diagnostics(evaluation, trained, held_out, features, wanted, scores["stage2"], settings)
        else:
            for method, values in scores.items():
                evaluation.rows += rows.multilabel_rows(values, truth, known, **place, method=method, seed=seed)
            evaluation.rows += rows.chance_multilabel_rows(truth, known, **place)
            evaluation.per_clip.append(of_labels(held_out, scores, truth, known))


def _truth(examples: Sequence[Example], labels: Sequence[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """[N, C] bool."""
    return np.array([[label in example.labels for label in labels] for example in examples], dtype=bool)


def _known(examples: Sequence[Example], labels: Sequence[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """[N, C] bool: somebody listened for the label (OpenMIC asks about few a clip)."""
    return np.array([[label not in example.unknown for label in labels] for example in examples], dtype=bool)


def _pooled(examples: Sequence[Example], features: Features) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.stack([features.mean(example).numpy() for example in examples])


def _fit_probe(
    examples: Sequence[Example], labels: Sequence[str], features: Features, single: bool
) -> probe.Probe | None:
    """The linear probe; without a validation split every fifth training clip helps to choose its penalty instead."""
    train, validation = ([e for e in examples if e.split == split] for split in ("train", "validation"))
    if not validation:
        train, validation = [e for place, e in enumerate(train) if place % 5 != 4], train[4::5]
    if not train or not validation or len(labels) < 2:
        return None
    fitted_on = [(_pooled(part, features), _truth(part, labels), _known(part, labels)) for part in (train, validation)]
    (inputs, truth, known), (held_inputs, held_truth, held_known) = fitted_on
    if single:
        return probe.fit_probe(inputs, truth.argmax(axis=1), held_inputs, held_truth.argmax(axis=1), len(labels))
    return probe.fit_multilabel_probe(inputs, truth, held_inputs, held_truth, known, held_known)


def _all_scores(
    trained: Trained, examples: Sequence[Example], features: Features, labels: Sequence[str], settings: Settings
) -> dict[str, Any]:
    """Scores [N, C] of the trained stages."""
    clips = Clips(examples, features)
    prompt = examples[0].prompt or ""
    scores: dict[str, Any] = {}
    if trained.stage2 is not None:
        sums, counts = predict.rank_vocabulary(
            trained.stage2,
            trained.tokenizer,
            clips,
            prompt,
            labels,
            trained.max_tokens,
            progress=_bar(f"{examples[0].task}, {examples[0].split}"),
        )
        scores["stage2"] = finish_scores(sums, counts, settings.scoring).cpu().numpy()
    if trained.stage1 is not None:
        texts = [text for label in labels for text in settings.texts(prompt, label)]
        owner = torch.arange(len(labels)).repeat_interleave(len(texts) // len(labels))
        embedded = predict.embed_texts(trained.stage1, trained.tokenizer, texts, trained.max_tokens)
        classes = ensemble(embedded, owner.to(embedded.device), len(labels))
        scores["stage1"] = similarity(predict.embed_clips(trained.stage1, clips), classes).cpu().numpy()
    return scores


def _keep_predictions(
    evaluation: Evaluation, examples: Sequence[Example], scores: Any, wanted: Any, labels: Sequence[str]
) -> None:
    chosen = scores.argmax(axis=1)
    counts = confusion_matrix(wanted, chosen, labels=range(len(labels)))
    evaluation.confusions.append(Confusion(f"{examples[0].task}, {examples[0].split}", labels, counts))
    for row, example in enumerate(examples):
        margin = float(scores[row, chosen[row]] - scores[row, wanted[row]])
        evaluation.predictions.append(Prediction(example, labels[chosen[row]], margin))


def _keep_diagnostics(
    evaluation: Evaluation,
    trained: Trained,
    examples: Sequence[Example],
    features: Features,
    wanted: Any,
    scores: Any,
    settings: Settings,
) -> None:
    """Calibration of the answers, and where the queries look in a few clips."""
    if settings.scoring == "sum":  # the others are no log-likelihoods
        title = f"{examples[0].task}, {examples[0].split}"
        evaluation.calibrations.append(Reliability(title, calibrate(scores, wanted)))
    assert trained.stage2 is not None
    for example in _draw(examples, LOOKED_INTO, seed=0):
        window = features.windows(example)[0]
        prompt = example.prompt or ""
        attention = clip_attention(trained.stage2, trained.tokenizer, window, prompt, trained.max_tokens)
        evaluation.attentions.append((example, attention))


def _draw(examples: Sequence[Example], count: int | None, seed: int) -> list[Example]:
    """At most `count` of the examples, drawn without looking at them; None: all."""
    order = np.random.default_rng(seed).permutation(len(examples))[:count]
    return [examples[index] for index in order]


def _retrieval(
    evaluation: Evaluation,
    trained: Trained,
    examples: Sequence[Example],
    features: Features,
    settings: Settings,
    seed: int,
) -> None:
    assert trained.stage1 is not None
    captions = [(clip, text) for clip, example in enumerate(examples) for text in example.captions]
    words = [text for _, text in captions]
    clips = Clips(examples, features)
    queries = predict.embed_clips(trained.stage1, clips)
    texts = predict.embed_texts(trained.stage1, trained.tokenizer, words, trained.max_tokens)
    owner = torch.tensor([clip for clip, _ in captions])
    found = retrieve(queries, texts, owner)
    _keep_retrieval(evaluation, examples, found, "stage1", seed)
    evaluation.rows += rows.chance_retrieval_rows(found, task="retrieval", split="test")
    if trained.stage1.alm:
        matcher = Matcher(trained.stage1, trained.tokenizer, clips, words, trained.max_tokens)
        found = retrieve(queries, texts, owner, reranker=matcher, top=settings.reranked)
        _keep_retrieval(evaluation, examples, found, "stage1+alm", seed)
    some = range(min(SHOWN, len(examples)))
    first = [next(index for index, (clip, _) in enumerate(captions) if clip == shown) for shown in some]
    evaluation.similarities.append(
        SimilarityMap(
            "Held-out clips and their captions",
            [example.id for example in examples[:SHOWN]],
            [captions[index][1] for index in first],
            similarity(queries[:SHOWN], texts[first]).cpu().numpy(),
            list(range(len(first))),
        )
    )


def _keep_retrieval(
    evaluation: Evaluation, examples: Sequence[Example], found: Retrieval, method: str, seed: int
) -> None:
    evaluation.rows += rows.retrieval_rows(found, task="retrieval", split="test", method=method, seed=seed)
    for prefix, ranks in rows.directions(found):
        values = rows.query_values(prefix, ranks)
        evaluation.per_clip.append(of_retrieval(examples, ranks, values, method))


def _captioning(
    evaluation: Evaluation,
    trained: Trained,
    examples: Sequence[Example],
    features: Features,
    settings: Settings,
    seed: int,
) -> None:
    assert trained.stage2 is not None
    generated = predict.generate(
        trained.stage2,
        trained.tokenizer,
        Clips(examples, features),
        CAPTION_PROMPT,
        trained.max_tokens,
        batch_size=32,
        progress=_bar("captions"),
        **settings.decoding.options(),
    )
    evaluation.captions += zip(examples, generated, strict=True)
    references = [example.captions for example in examples]
    scored = score_captions(generated, references, REPORTED)
    if reason := sentences.missing():
        scored.not_computed[SENTENCES] = reason
    else:
        similar = sentences.sentence_similarity(generated, references)
        scored.scores[SENTENCES] = CaptionScore(float(similar.mean()), similar, is_mean=True)
    evaluation.not_computed |= scored.not_computed
    place: dict[str, Any] = {"split": "test", "method": "stage2", "seed": seed}
    evaluation.rows += rows.caption_rows(scored, task="captioning", **place)
    means = {name: score.per_clip for name, score in scored.scores.items() if score.is_mean}
    ids = clip_ids(examples)
    evaluation.per_clip.append(PerClip("captioning", "test", ids, values={"stage2": means}))
    named: dict[str, list[bool]] = {}
    for example, caption in evaluation.captions:
        if len(example.labels) == 1:
            named.setdefault(example.task, []).append(names_label(caption, example.labels[0]))
    everything = [value for values in named.values() for value in values]
    if everything:
        evaluation.rows += rows.share_rows(everything, task="captioning", metric="names_label", **place)
    for task, values in named.items():
        evaluation.rows += rows.share_rows(values, task=task, metric="caption_names_label", **place)


def _bar(title: str) -> predict.Progress:
    return lambda batches, total: tqdm(batches, desc=title, unit="batch", total=total, mininterval=1.0)
