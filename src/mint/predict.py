"""What trained models say of clips: the step from frozen features to scores, embeddings and text.

A clip is a list of windows of features [T, D], one unless it is longer than 30 s. Each window is asked by itself, the
answers are combined: scores and embeddings are averaged; of the texts that the windows give, the one is kept that all
windows together find most likely. Windows are batched by length, so that padding is rare; results do not depend on it,
but for sampled texts, whose draws are made batch by batch.

Clips are read some at a time: a sequence that fetches a clip's windows when it is indexed is never whole in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from mint.data.batches.collate import pad_features, tokenize
from mint.model.evaluating import evaluating
from mint.model.objectives.alm import MATCHED
from mint.model.stage1 import Stage1
from mint.model.stage2 import Stage2
from mint.types import MintError

Windows = Sequence[Tensor]
"""The windows of one clip, [T, D] each."""
Progress = Callable[[Iterable[Any], int], Iterable[Any]]
"""Passes on the batches, of which there are so many if no clip has several windows."""
CLIPS_AT_ONCE = 256
"""Clips whose windows are in memory together."""


def no_progress(batches: Iterable[Any], _: int) -> Iterable[Any]:
    """Shows nothing."""
    return batches


def embed_clips(stage1: Stage1, clips: Sequence[Windows], batch_size: int = 64) -> Tensor:
    """Clips in the shared space: [N, Q, E], L2-normalised; the windows of a clip are averaged query by query."""
    return functional.normalize(
        _by_window(stage1, clips, batch_size, lambda part, _: stage1.embed_audio(**part)), dim=-1
    )


def embed_texts(stage1: Stage1, tokenizer: Any, texts: Sequence[str], max_tokens: int, batch_size: int = 256) -> Tensor:
    """Texts in the shared space: [M, E], L2-normalised."""
    device = stage1.temperature.device
    with evaluating(stage1):
        parts = [
            stage1.embed_text(
                *(part.to(device) for part in tokenize(tokenizer, texts[first : first + batch_size], max_tokens))
            )
            for first in range(0, len(texts), batch_size)
        ]
    return torch.cat(parts)


def rank_vocabulary(
    stage2: Stage2,
    tokenizer: Any,
    clips: Sequence[Windows],
    prompt: str,
    candidates: Sequence[str],
    max_tokens: int,
    batch_size: int = 16,
    progress: Progress = no_progress,
) -> tuple[Tensor, Tensor]:
    """Vocabulary ranking (paper, section 4.1): log-likelihood of each candidate as the answer.

    Returns:
        sums [N, C] over the tokens and the end, and token counts [C] for those who want means.
    """
    counts = torch.empty(0)

    def score(part: dict[str, Tensor], prompts: Sequence[str]) -> Tensor:
        nonlocal counts
        soft_prompt = _soft_prompt(stage2, tokenizer, part, prompts, max_tokens)
        sums, counts = stage2.language.score(soft_prompt, prompts, candidates)
        return sums

    return _by_window(stage2, clips, batch_size, score, prompt, progress), counts


def generate(
    stage2: Stage2,
    tokenizer: Any,
    clips: Sequence[Windows],
    prompt: str,
    max_tokens: int,
    batch_size: int = 16,
    progress: Progress = no_progress,
    seed: int | None = None,
    **options: Any,
) -> list[str]:
    """The answer to a prompt for each clip.

    Args:
        stage2: the trained stage.
        tokenizer: Bridge-Net's.
        clips: the windows of each.
        prompt: the instruction.
        max_tokens: longest instruction that Bridge-Net reads.
        batch_size: windows that are answered together.
        progress: around the batches.
        seed: of the draws, where the options ask for sampling; None: the generator of torch as it is.
        options: of transformers' `generate`.
    """
    texts: dict[int, list[str]] = {}
    with evaluating(stage2), nullcontext() if seed is None else _seeded(seed, stage2):
        for part, owners in _batches(clips, batch_size, progress):
            prompts = [prompt] * len(owners)
            soft_prompt = _soft_prompt(stage2, tokenizer, _on_device(stage2, part), prompts, max_tokens)
            for owner, text in zip(owners, stage2.language.generate(soft_prompt, prompts, **options), strict=True):
                texts.setdefault(owner, []).append(text)
    answers = []
    for owner in range(len(clips)):
        different = list(dict.fromkeys(texts[owner]))
        answers.append(
            different[0]
            if len(different) == 1
            else _most_likely(stage2, tokenizer, clips[owner], prompt, different, max_tokens)
        )
    return answers


def _most_likely(stage2: Stage2, tokenizer: Any, clip: Windows, prompt: str, texts: list[str], max_tokens: int) -> str:
    """The text whose mean log-likelihood a token, over all windows, is highest."""
    sums, counts = rank_vocabulary(stage2, tokenizer, [clip], prompt, texts, max_tokens)
    return texts[int((sums[0] / counts).argmax())]


def _soft_prompt(
    stage2: Stage2, tokenizer: Any, part: dict[str, Tensor], prompts: Sequence[str], max_tokens: int
) -> Tensor:
    ids, mask = (tensor.to(part["audio_mask"].device) for tensor in tokenize(tokenizer, prompts, max_tokens))
    return stage2.soft_prompt(**part, instruction_ids=ids, instruction_mask=mask)


def _by_window(
    model: Stage1 | Stage2,
    clips: Sequence[Windows],
    batch_size: int,
    call: Callable[[dict[str, Tensor], Sequence[str]], Tensor],
    prompt: str = "",
    progress: Progress = no_progress,
) -> Tensor:
    """Call a model on batches of windows and average its result over the windows of each clip: [N, ...]."""
    sums: list[Tensor | None] = [None] * len(clips)
    counts = [0] * len(clips)
    with evaluating(model):
        for part, owners in _batches(clips, batch_size, progress):
            for owner, value in zip(owners, call(_on_device(model, part), [prompt] * len(owners)), strict=True):
                known = sums[owner]
                sums[owner] = value if known is None else known + value
                counts[owner] += 1
    return torch.stack([total / count for total, count in zip(sums, counts, strict=True) if total is not None])


def _batches(
    clips: Sequence[Windows], batch_size: int, progress: Progress
) -> Iterator[tuple[dict[str, Tensor], list[int]]]:
    """Padded batches of windows, of like length together, with the clip that each window belongs to."""
    return iter(progress(_sorted_batches(clips, batch_size), -(-len(clips) // batch_size)))


def _sorted_batches(clips: Sequence[Windows], batch_size: int) -> Iterator[tuple[dict[str, Tensor], list[int]]]:
    for start in range(0, len(clips), CLIPS_AT_ONCE):
        some = range(start, min(start + CLIPS_AT_ONCE, len(clips)))
        windows = sorted(((owner, window) for owner in some for window in clips[owner]), key=lambda pair: len(pair[1]))
        for first in range(0, len(windows), batch_size):
            part = windows[first : first + batch_size]
            yield pad_features([window for _, window in part]), [owner for owner, _ in part]


def _on_device(model: torch.nn.Module, part: dict[str, Tensor]) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    return {name: tensor.to(device) for name, tensor in part.items()}


@contextmanager
def _seeded(seed: int, model: torch.nn.Module) -> Iterator[None]:
    """Draws that depend on the seed alone; the generators are left as they were."""
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


Scoring = Literal["sum", "mean", "prior"]


def finish_scores(sums: Tensor, counts: Tensor, scoring: Scoring = "sum") -> Tensor:
    """Scores [N, C] from summed log-likelihoods [N, C] and token counts [C]."""
    if scoring == "mean":
        return sums / counts
    if scoring == "prior":
        return sums - sums.mean(dim=0, keepdim=True)
    return sums


class Matcher:
    """Match scores of pairs: the `Reranker` that `retrieve` takes.

    Args:
        stage1: trained with ALM.
        tokenizer: Bridge-Net's.
        clips: the windows of each of N clips, [T, D] each.
        texts: M captions.
        max_tokens: longest caption that Bridge-Net reads.
        batch_size: pairs that are scored together.

    Raises:
        MintError: stage 1 was trained without ALM.
    """

    def __init__(
        self,
        stage1: Stage1,
        tokenizer: Any,
        clips: Sequence[Windows],
        texts: Sequence[str],
        max_tokens: int,
        batch_size: int = 64,
    ) -> None:
        if not stage1.alm:
            raise MintError(
                "stage 1 was trained without ALM (objectives.alm is false); its matching head knows nothing"
            )
        self.stage1 = stage1
        self.clips = clips
        self.batch_size = batch_size
        self.windows = torch.tensor([len(windows) for windows in clips])
        self.ids, self.mask = tokenize(tokenizer, texts, max_tokens)

    def __call__(self, clips: Tensor, texts: Tensor) -> Tensor:
        """Match scores [P] of pairs, given as indices of clips [P] and of texts [P]."""
        clips, texts = clips.cpu(), texts.cpu()
        scores = torch.empty(len(clips))
        with evaluating(self.stage1):
            for rows in torch.argsort(clips, stable=True).split(self.batch_size):  # a clip's pairs share its audio
                scores[rows] = self._match(clips[rows], texts[rows]).cpu()
        return scores

    def _match(self, clips: Tensor, texts: Tensor) -> Tensor:
        """One batch of pairs; a clip of several windows is matched by each of them, and the scores are averaged."""
        device = self.stage1.temperature.device
        heard, place = torch.unique(clips, return_inverse=True)
        part = pad_features([window for clip in heard.tolist() for window in self.clips[clip]])
        audio = self.stage1.bridge.project_audio(*(part[name].to(device) for name in ("audio_features", "audio_mask")))
        counts = self.windows[heard]
        times = counts[place]
        pair = torch.arange(len(clips)).repeat_interleave(times)  # [R], one row for each window of each pair
        within = torch.arange(len(pair)) - (times.cumsum(0) - times)[pair]
        window = (counts.cumsum(0) - counts)[place[pair]] + within
        ids, mask = self.ids[texts], self.mask[texts]
        length = int(mask.sum(dim=1).max())
        logits = self.stage1.match(
            audio.select(window.to(device)), ids[pair, :length].to(device), mask[pair, :length].to(device)
        )[:, MATCHED]
        sums = torch.zeros(len(clips), device=device).index_add_(0, pair.to(device), logits)
        return sums / times.to(device)
