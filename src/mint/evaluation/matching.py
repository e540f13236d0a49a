"""Retrieval re-ranked by stage 1's matching head (ALM; paper, section 2.2), which the paper trains but never ranks by.

As in BLIP-2 the score of a pair is the head's logit for "matched", averaged over queries, to which `retrieve` adds the
similarity. A pair costs a joint pass of queries and text, so only the first items of each query are re-ranked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mint.data.collate import pad_features, tokenize
from mint.evaluation.predict import Windows
from mint.model.objectives.alm import MATCHED
from mint.model.stage1 import Stage1
from mint.types import MintError


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

    @torch.no_grad()
    def __call__(self, clips: Tensor, texts: Tensor) -> Tensor:
        """Match scores [P] of pairs, given as indices of clips [P] and of texts [P]."""
        training = self.stage1.training
        self.stage1.eval()
        try:
            clips, texts = clips.cpu(), texts.cpu()
            scores = torch.empty(len(clips))
            for rows in torch.argsort(clips, stable=True).split(self.batch_size):  # a clip's pairs share its audio
                scores[rows] = self._match(clips[rows], texts[rows]).cpu()
            return scores
        finally:
            self.stage1.train(training)

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
