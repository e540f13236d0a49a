"""Stage 1: audio-language representation learning (paper, section 2.2).

Wires the three objectives to Bridge-Net. As in the published code, ALM's batch is the pairs themselves, each text with
a hard negative clip, and each clip with a hard negative text. The audio's keys and values are projected once for all
passes, and the queries' own pass serves ALC and ATG; the losses and gradients equal those of separate passes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mint.model import masks
from mint.model.bridge_net import AudioKeysValues, BridgeNet
from mint.model.objectives.alc import alc_loss, similarity
from mint.model.objectives.alm import MATCHED, alm_loss, draw_negatives, pair_noise, same_caption
from mint.model.objectives.atg import LanguageHead, atg_loss, decoder_input
from mint.types import BridgeOutput

TEMPERATURE_RANGE = (0.001, 0.5)
"""The learnable temperature is kept in here (BLIP-2 leaves it free)."""


class Stage1(nn.Module):
    """Bridge-Net with the heads of stage 1.

    Args:
        bridge: the stack.
        dec_token: id of [DEC].
        shared_width: E.
        temperature: initial temperature.
        label_smoothing: of ALC and ATG.
        alc: train the contrastive objective.
        alm: train the matching objective.
        atg: train the generation objective.
    """

    accepts_loss_kwargs = False  # the Trainer must not rescale the loss by a token count

    def __init__(
        self,
        *,
        bridge: BridgeNet,
        dec_token: int,
        shared_width: int = 256,
        temperature: float = 0.07,
        label_smoothing: float = 0.1,
        alc: bool = True,
        alm: bool = True,
        atg: bool = True,
    ) -> None:
        super().__init__()
        self.bridge = bridge
        self.dec_token = dec_token
        self.label_smoothing = label_smoothing
        self.alc, self.alm, self.atg = alc, alm, atg
        self.audio_projection = nn.Linear(bridge.width, shared_width)
        self.text_projection = nn.Linear(bridge.width, shared_width)
        self.temperature = nn.Parameter(torch.tensor(temperature))
        self.matching_head = nn.Linear(bridge.width, 2)
        self.language_head = LanguageHead(width=bridge.width, vocab_size=bridge.word_embeddings.num_embeddings)

    def forward(
        self, audio_features: Tensor, audio_mask: Tensor, text_ids: Tensor, text_mask: Tensor, draws: Tensor
    ) -> dict[str, Tensor]:
        """Losses of a batch of pairs.

        Args:
            audio_features: [B, T, audio width] from the frozen encoder.
            audio_mask: [B, T] bool, True: real.
            text_ids: [B, L], [CLS] first.
            text_mask: [B, L] bool, True: real.
            draws: [B] int64, a number of each example's own that seeds its negatives.

        Returns:
            `loss`, the sum of the objectives that are on, and each of them by name.
        """
        audio = self.bridge.project_audio(audio_features, audio_mask)
        queries = self.bridge.encode_queries(audio, keep_keys_values=self.atg)
        losses: dict[str, Tensor] = {}
        if self.alc or self.alm:
            scores = self._scores(queries, text_ids, text_mask)
            if self.alc:
                targets = torch.arange(scores.shape[0], device=scores.device)
                losses["alc"] = alc_loss(scores, scores.T, targets, self.label_smoothing)
            if self.alm:
                losses["alm"] = self._matching(audio, text_ids, text_mask, scores, draws)
        if self.atg:
            losses["atg"] = self._generation(queries, text_ids, text_mask)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def embed_audio(self, features: Tensor, mask: Tensor) -> Tensor:
        """Clips in the shared space: [B, Q, E], L2-normalised."""
        audio = self.bridge.project_audio(features, mask)
        return self._shared_queries(self.bridge.encode_queries(audio))

    def embed_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Texts in the shared space: [B, E], L2-normalised."""
        output = self.bridge.encode_text(ids, mask)
        assert output.text is not None
        return functional.normalize(self.text_projection(output.text[:, 0]), dim=-1)

    def match(self, audio: AudioKeysValues, ids: Tensor, mask: Tensor) -> Tensor:
        """Matching logits [B, 2] of B pairs, averaged over queries."""
        attention = masks.bidirectional(self.bridge.num_queries, mask)
        output = self.bridge.encode_pair(audio, ids, attention)
        assert output.queries is not None
        return self.matching_head(output.queries).mean(dim=1)

    def _shared_queries(self, queries: BridgeOutput) -> Tensor:
        assert queries.queries is not None
        return functional.normalize(self.audio_projection(queries.queries), dim=-1)

    def _scores(self, queries: BridgeOutput, ids: Tensor, mask: Tensor) -> Tensor:
        """Similarities over temperature, clips by texts [B, B]."""
        temperature = self.temperature.clamp(*TEMPERATURE_RANGE)
        return similarity(self._shared_queries(queries), self.embed_text(ids, mask)) / temperature

    def _matching(self, audio: AudioKeysValues, ids: Tensor, mask: Tensor, scores: Tensor, draws: Tensor) -> Tensor:
        batch = ids.shape[0]
        forbidden = same_caption(ids, ids)
        clips, clips_valid = draw_negatives(scores.T, forbidden, pair_noise(draws, draws, salt=1))
        texts, texts_valid = draw_negatives(scores, forbidden, pair_noise(draws, draws, salt=2))
        own = torch.arange(batch, device=ids.device)
        audio_rows = torch.cat([own, clips, own])
        text_rows = torch.cat([own, own, texts])
        logits = self.match(audio.select(audio_rows), ids[text_rows], mask[text_rows])
        labels = (torch.arange(3 * batch, device=ids.device) < batch).long() * MATCHED
        return alm_loss(logits, labels, torch.cat([torch.ones_like(clips_valid), clips_valid, texts_valid]))

    def _generation(self, queries: BridgeOutput, ids: Tensor, mask: Tensor) -> Tensor:
        output = self.bridge.continue_text(queries, decoder_input(ids, self.dec_token), mask)
        assert output.text is not None
        embeddings = self.bridge.word_embeddings.weight
        return atg_loss(
            output.text, ids, mask, lambda hidden: self.language_head(hidden, embeddings), self.label_smoothing
        )
