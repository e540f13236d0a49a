"""What trained models say of clips: the step from frozen features to scores, embeddings and text.

A clip is a list of windows of features [T, D], one unless it is longer than 30 s. Each window is asked by itself and
the answers are combined: scores and embeddings are averaged; of the texts that the windows give, the one is kept that
all windows together find most likely. Windows are batched by length, so that padding is rare. Results do not depend on
the batches, except those of sampled texts, whose draws are made batch by batch.

Clips are read some at a time: a sequence that fetches a clip's windows when it is indexed is never whole in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from mint.builders.stages import TrainedStage
from mint.data.batches.collate import pad_features, tokenize
from mint.language.watching import Watch
from mint.model.evaluating import evaluating
from mint.model.objectives.alm import MATCHED
from mint.model.stage1 import Stage1
from mint.model.stage2 import Stage2
from mint.types import MintError

Windows = Sequence[Tensor]
"""The windows of one clip, [T, D] each."""
Progress = Callable[[Iterable[Any], int], Iterable[Any]]
"""Passes the batches on; the number is how many there are if no clip has several windows."""
Scoring = Literal["sum", "mean", "prior", "calibrated"]
"""How log-likelihoods become the scores of vocabulary ranking."""
CLIPS_AT_ONCE = 256
"""Clips whose windows are in memory together."""
BIASES = 256
"""Lists of candidates whose biases are kept: a server is asked for ever new ones."""


def no_progress(batches: Iterable[Any], _: int) -> Iterable[Any]:
    """Pass the batches on and show nothing."""
    return batches


def embed_clips(stage1: TrainedStage[Stage1], clips: Sequence[Windows], batch_size: int = 64) -> Tensor:
    """Embed clips in the space shared with texts; the windows of a clip are averaged query by query.

    Returns:
        [N, Q, E], L2-normalised.
    """
    means = _mean_over_windows(
        stage1, clips, batch_size, lambda batch, _: stage1.model.embed_audio(**batch)
    )  # [N, Q, E]
    return functional.normalize(means, dim=-1)


def embed_texts(stage1: TrainedStage[Stage1], texts: Sequence[str], batch_size: int = 256) -> Tensor:
    """Embed texts in the space shared with clips.

    Returns:
        [M, E], L2-normalised.
    """
    device = stage1.model.temperature.device
    embedded = []
    with evaluating(stage1.model):
        for first in range(0, len(texts), batch_size):
            ids, mask = tokenize(stage1.tokenizer, texts[first : first + batch_size], stage1.max_tokens)
            embedded.append(stage1.model.embed_text(ids.to(device), mask.to(device)))
    return torch.cat(embedded)


def rank_vocabulary(
    stage2: TrainedStage[Stage2],
    clips: Sequence[Windows],
    prompts: str | Sequence[str],
    candidates: Sequence[str],
    batch_size: int = 16,
    progress: Progress = no_progress,
) -> tuple[Tensor, Tensor]:
    """Rank a vocabulary: the log-likelihood of each candidate as the answer (paper, section 4.1).

    Args:
        stage2: the trained stage.
        clips: the windows of N clips.
        prompts: the instruction, one for all clips or one for each.
        candidates: the C answers.
        batch_size: the number of windows that are asked together.
        progress: wraps the batches.

    Returns:
        Sums [N, C] over the tokens and the end, and token counts [C] for those who want means.
    """
    asked = [prompts] * len(clips) if isinstance(prompts, str) else prompts
    counts = torch.empty(0)

    def score(batch: dict[str, Tensor], owners: Sequence[int]) -> Tensor:
        nonlocal counts
        batch_prompts = [asked[owner] for owner in owners]
        soft_prompt = _soft_prompt(stage2, batch, batch_prompts)
        sums, counts = stage2.model.language.score(soft_prompt, batch_prompts, candidates)
        return sums  # [B, C]

    return _mean_over_windows(stage2, clips, batch_size, score, progress), counts


def score_labels(
    stage2: TrainedStage[Stage2],
    clips: Sequence[Windows],
    prompts: str | Sequence[str],
    labels: Sequence[str],
    scoring: Scoring | None = None,
    progress: Progress = no_progress,
) -> Tensor:
    """Score labels as answers, [N, C]: what evaluation, `Mint` and the server rank by.

    Args:
        stage2: the trained stage.
        clips: the windows of N clips.
        prompts: the instruction, one for all clips or one for each.
        labels: the C candidates.
        scoring: see `finish_scores`; None: the run's own. `prior` takes the mean over the clips of each prompt.
        progress: wraps the batches.

    Raises:
        MintError: `calibrated`, and the run keeps no reference clips.
    """
    asked = [prompts] * len(clips) if isinstance(prompts, str) else prompts
    scoring = scoring or own_scoring(stage2)
    sums, counts = rank_vocabulary(stage2, clips, asked, labels, progress=progress)  # [N, C], [C]

    scores = torch.empty_like(sums)
    for prompt, rows in rows_by_prompt(asked).items():
        # What a label gets from any sound depends on what was asked.
        bias = label_bias(stage2, prompt, labels) if scoring == "calibrated" else None
        scores[rows] = finish_scores(sums[rows], counts, scoring, bias)
    return scores


def rows_by_prompt(prompts: Sequence[str]) -> dict[str, Tensor]:
    """Return the rows of the clips that are asked each prompt."""
    rows: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(row)
    return {prompt: torch.tensor(indices) for prompt, indices in rows.items()}


def own_scoring(stage2: TrainedStage[Stage2]) -> Scoring:
    """Return the scoring that a run is meant for: `calibrated` where it keeps reference clips, else `sum` (paper)."""
    return "sum" if stage2.reference is None else "calibrated"


def label_bias(stage2: TrainedStage[Stage2], prompt: str, candidates: Sequence[str]) -> Tensor:
    """Return what each candidate gets from any sound: the log of its mean share among them, [C].

    The mean is over the reference clips of the run (`mint.data.features.reference`), and the shares are those of the
    scores of `mean`.

    Raises:
        MintError: the run keeps no reference clips.
    """
    if stage2.reference is None:
        raise MintError(
            "scoring 'calibrated' needs reference clips, and this run keeps none; train it with `reference_clips: 32`, "
            "or choose another scoring"
        )
    # The splits of a task, and the calls of a server, ask for the same again and again.
    key = (prompt, *candidates)
    if key not in stage2.biases:
        if len(stage2.biases) >= BIASES:
            stage2.biases.clear()
        clips = [[clip.float()] for clip in stage2.reference.asked(prompt)]
        sums, counts = rank_vocabulary(stage2, clips, prompt, candidates)  # [N, C], [C]
        # Shares are averaged and not their logarithms, which a single clip of a class could drag far down.
        stage2.biases[key] = _log_shares(sums, counts).exp().mean(dim=0).log()
    return stage2.biases[key]


def _log_shares(sums: Tensor, counts: Tensor) -> Tensor:
    """Return the logarithms of the candidates' shares [N, C], by their likelihood for each token."""
    return (sums / counts).log_softmax(dim=1)


def finish_scores(sums: Tensor, counts: Tensor, scoring: Scoring = "sum", bias: Tensor | None = None) -> Tensor:
    """Return the scores [N, C] of clips that were asked the same prompt.

    Args:
        sums: log-likelihoods [N, C] as `rank_vocabulary` gives them.
        counts: tokens of each candidate [C].
        scoring: `sum`, the log-likelihoods; `mean`, the same for each token; `prior`, the sums above their mean over
            the clips; `calibrated`, the candidates' shares by their likelihood for each token, less their bias.
        bias: what `label_bias` gives for the prompt [C]; needed by `calibrated` alone.
    """
    if scoring == "calibrated":
        assert bias is not None
        return _log_shares(sums, counts) - bias
    if scoring == "mean":
        return sums / counts
    if scoring == "prior":
        return sums - sums.mean(dim=0, keepdim=True)
    return sums


def generate(
    stage2: TrainedStage[Stage2],
    clips: Sequence[Windows],
    prompts: str | Sequence[str],
    batch_size: int = 16,
    progress: Progress = no_progress,
    seed: int | None = None,
    watching: Callable[[Sequence[int]], Watch] | None = None,
    **options: Any,
) -> list[str]:
    """Answer a prompt for each clip.

    Args:
        stage2: the trained stage.
        clips: the windows of each clip.
        prompts: the instruction, one for all clips or one for each.
        batch_size: the number of windows that are answered together.
        progress: wraps the batches.
        seed: of the draws, where the options ask for sampling; None: the generator of torch goes on as it is.
        watching: takes the clip of each row of a batch, and returns what sees the tokens of the rows as they come.
        options: those of transformers' `generate`.
    """
    asked = [prompts] * len(clips) if isinstance(prompts, str) else prompts
    answers_of: list[list[str]] = [[] for _ in clips]
    with evaluating(stage2.model), nullcontext() if seed is None else _seeded(seed, stage2.model):
        for batch, owners in _batches(clips, batch_size, progress):
            batch_prompts = [asked[owner] for owner in owners]
            soft_prompt = _soft_prompt(stage2, _on_device(stage2.model, batch), batch_prompts)
            watch = {} if watching is None else {"watch": watching(owners)}
            texts = stage2.model.language.generate(soft_prompt, batch_prompts, **watch, **options)
            for owner, text in zip(owners, texts, strict=True):
                answers_of[owner].append(text)

    answers = []
    for clip, texts in enumerate(answers_of):
        different = list(dict.fromkeys(texts))
        is_same = len(different) == 1
        answers.append(different[0] if is_same else _most_likely(stage2, clips[clip], asked[clip], different))
    return answers


def _most_likely(stage2: TrainedStage[Stage2], clip: Windows, prompt: str, texts: list[str]) -> str:
    """Return the text whose mean log-likelihood for each token, over all windows, is highest."""
    sums, counts = rank_vocabulary(stage2, [clip], prompt, texts)
    return texts[int((sums[0] / counts).argmax())]


def _soft_prompt(stage2: TrainedStage[Stage2], batch: dict[str, Tensor], prompts: Sequence[str]) -> Tensor:
    device = batch["audio_mask"].device
    ids, mask = tokenize(stage2.tokenizer, prompts, stage2.max_tokens)
    return stage2.model.soft_prompt(**batch, instruction_ids=ids.to(device), instruction_mask=mask.to(device))


def _mean_over_windows(
    stage: TrainedStage[Any],
    clips: Sequence[Windows],
    batch_size: int,
    call: Callable[[dict[str, Tensor], Sequence[int]], Tensor],
    progress: Progress = no_progress,
) -> Tensor:
    """Call a model on batches of windows and average its result over the windows of each clip.

    Args:
        stage: the trained stage.
        clips: the windows of each of N clips.
        batch_size: the number of windows of a batch.
        call: takes a batch on the model's device and the clip of each of its rows; returns one value a row [B, ...].
        progress: wraps the batches.

    Returns:
        [N, ...].
    """
    sums: list[Tensor | None] = [None] * len(clips)
    counts = [0] * len(clips)
    with evaluating(stage.model):
        for batch, owners in _batches(clips, batch_size, progress):
            values = call(_on_device(stage.model, batch), owners)
            for owner, value in zip(owners, values, strict=True):
                before = sums[owner]
                sums[owner] = value if before is None else before + value
                counts[owner] += 1

    means = [total / count for total, count in zip(sums, counts, strict=True) if total is not None]
    return torch.stack(means)


def _batches(
    clips: Sequence[Windows], batch_size: int, progress: Progress
) -> Iterator[tuple[dict[str, Tensor], list[int]]]:
    """Yield padded batches of windows of similar length, with the clip that each window belongs to."""
    return iter(progress(_sorted_batches(clips, batch_size), -(-len(clips) // batch_size)))


def _sorted_batches(clips: Sequence[Windows], batch_size: int) -> Iterator[tuple[dict[str, Tensor], list[int]]]:
    for start in range(0, len(clips), CLIPS_AT_ONCE):
        windows = []
        for owner in range(start, min(start + CLIPS_AT_ONCE, len(clips))):
            windows += [(owner, window) for window in clips[owner]]
        windows.sort(key=lambda pair: len(pair[1]))

        for first in range(0, len(windows), batch_size):
            rows = windows[first : first + batch_size]
            yield pad_features([window for _, window in rows]), [owner for owner, _ in rows]


def _on_device(model: torch.nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    return {name: tensor.to(device) for name, tensor in batch.items()}


@contextmanager
def _seeded(seed: int, model: torch.nn.Module) -> Iterator[None]:
    """Let draws depend on the seed alone inside the block; the generators are left as they were."""
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class Matcher:
    """Scores pairs of clip and text by stage 1's matching head: the `Reranker` that `retrieve` takes.

    Args:
        stage1: the trained stage, with ALM among its objectives.
        clips: the windows of each of N clips, [T, D] each.
        texts: M captions.
        batch_size: the number of pairs that are scored together.

    Raises:
        MintError: stage 1 was trained without ALM.
    """

    def __init__(
        self, stage1: TrainedStage[Stage1], clips: Sequence[Windows], texts: Sequence[str], batch_size: int = 64
    ) -> None:
        if not stage1.model.alm:
            raise MintError("stage 1 was trained without ALM (objectives.alm is false); its matching head is untrained")
        self.stage1 = stage1.model
        self.clips = clips
        self.batch_size = batch_size
        self.num_windows = torch.tensor([len(windows) for windows in clips])  # [N]
        self.ids, self.mask = tokenize(stage1.tokenizer, texts, stage1.max_tokens)  # [M, L]

    def __call__(self, clips: Tensor, texts: Tensor) -> Tensor:
        """Return the log-odds of a match [P] of pairs, given as indices of clips [P] and of texts [P]."""
        clips, texts = clips.cpu(), texts.cpu()
        scores = torch.empty(len(clips))
        with evaluating(self.stage1):
            # Pairs in the order of their clips: those of one clip share its audio.
            for rows in torch.argsort(clips, stable=True).split(self.batch_size):
                scores[rows] = self._match(clips[rows], texts[rows]).cpu()
        return scores

    def _match(self, clips: Tensor, texts: Tensor) -> Tensor:
        """Score one batch of P pairs; the scores of a clip's windows are averaged."""
        device = self.stage1.temperature.device

        # Each clip of the batch is projected once, all its windows one after the other.
        different, clip_of_pair = torch.unique(clips, return_inverse=True)  # [C], [P]
        windows: list[Tensor] = []
        for clip in different.tolist():
            windows += self.clips[clip]
        batch = pad_features(windows)
        audio = self.stage1.bridge.project_audio(batch["audio_features"].to(device), batch["audio_mask"].to(device))

        # A row is one window of one pair: the pair that it belongs to, and the index of its window.
        counts = self.num_windows[different]  # [C]
        windows_of_pair = counts[clip_of_pair]  # [P]
        pair = torch.arange(len(clips)).repeat_interleave(windows_of_pair)  # [R]
        first_row = windows_of_pair.cumsum(0) - windows_of_pair  # [P]
        first_window = counts.cumsum(0) - counts  # [C]
        window = first_window[clip_of_pair[pair]] + torch.arange(len(pair)) - first_row[pair]  # [R]

        # The captions were padded to the longest of all; this batch needs no more than its own.
        ids, mask = self.ids[texts], self.mask[texts]
        length = int(mask.sum(dim=1).max())
        ids, mask = ids[pair, :length].to(device), mask[pair, :length].to(device)  # [R, L]

        # One logit says little without the other: the head is trained on their difference.
        logits = self.stage1.match(audio.select(window.to(device)), ids, mask)  # [R, 2]
        log_odds = logits[:, MATCHED] - logits[:, 1 - MATCHED]  # [R]
        sums = torch.zeros(len(clips), device=device).index_add_(0, pair.to(device), log_odds)
        return sums / windows_of_pair.to(device)
