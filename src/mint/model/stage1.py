"""Stage 1: audio-language representation learning (paper, section 2.2).

Wires the three objectives to Bridge-Net. As in the published code, ALM's batch is the pairs themselves, each text with
a hard negative clip, and each clip with a hard negative text. The audio's keys and values are projected once for all
passes, and one pass serves ALC and ATG; the losses and gradients equal those of separate passes. With
several ranks, ALC and ALM work on the global batch (see `gather.py`): a rank's losses are weighted so that their mean
over ranks, and that of their gradients, is what one process with the whole batch would have. A batch may also be one
part of a larger one that is accumulated (see `mint.training.accumulation`); the same then holds of the mean over parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from mint.model import gather, masks
from mint.model.accumulated import Negatives, Part
from mint.model.attention import AudioKeysValues
from mint.model.bridge_net import BridgeNet
from mint.model.objectives.alc import alc_loss, similarity
from mint.model.objectives.alm import MATCHED, alm_loss, draw_negatives, pair_noise, same_caption
from mint.model.objectives.atg import LanguageHead, atg_loss, decoder_input
from mint.types import BridgeOutput

TEMPERATURE_RANGE = (0.001, 0.5)
"""The learnable temperature is kept in here (BLIP-2 leaves it free)."""
PADDING = -1
"""Token id of padding in captions that are compared or travel between ranks."""


class Stage1(nn.Module):
    """Bridge-Net with the heads of stage 1; those of an objective that is off are not trained.

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
        self.temperature = nn.Parameter(torch.tensor([temperature]))  # [1]: FSDP takes no scalars
        self.matching_head = nn.Linear(bridge.width, 2)
        self.language_head = LanguageHead(width=bridge.width, vocab_size=bridge.word_embeddings.num_embeddings)
        self.audio_projection.requires_grad_(alc)
        self.text_projection.requires_grad_(alc)
        self.temperature.requires_grad_(alc)
        self.matching_head.requires_grad_(alm)
        self.language_head.requires_grad_(atg)

    def forward(
        self,
        audio_features: Tensor,
        audio_mask: Tensor,
        text_ids: Tensor,
        text_mask: Tensor,
        draws: Tensor,
        part: Part | None = None,
    ) -> dict[str, Tensor]:
        """Losses of a batch of pairs.

        Args:
            audio_features: [B, T, audio width] from the frozen encoder.
            audio_mask: [B, T] bool, True: real.
            text_ids: [B, L], [CLS] first.
            text_mask: [B, L] bool, True: real.
            draws: [B] int64, a number of each example's own that seeds its negatives.
            part: of an accumulated batch, what was found out about the whole.

        Returns:
            `loss`, the sum of the objectives that are on, and each of them by name. With several ranks their mean over
            ranks is the loss of the global batch; with several parts their mean over parts.
        """
        audio = self.bridge.project_audio(audio_features, audio_mask)
        contrast = self.alc or self.alm if part is None else part.alc is not None
        output = self.represent(audio, text_ids, text_mask, contrast)
        losses: dict[str, Tensor] = {}
        if part is not None:
            losses |= self._contrast_part(part, audio, output)
        elif contrast:
            scores = self.scores(*self.shared(output))
            if self.alc:
                losses["alc"] = self.contrast(*scores)
            if self.alm:
                negatives = self.negatives(*scores, text_ids, text_mask, draws)
                wrong_audio = self._audio_of(negatives.clips, audio, audio_features, audio_mask)
                weight = gather.share(negatives.valid.sum(), text_ids.device)
                losses["alm"] = weight * self._matching(audio, wrong_audio, negatives)
        if self.atg:
            weight = gather.share(text_mask[:, 1:].sum(), text_ids.device) if part is None else part.atg_weight
            losses["atg"] = weight * self._generation(output, text_ids, text_mask)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def represent(self, audio: AudioKeysValues, ids: Tensor, mask: Tensor, contrast: bool) -> BridgeOutput:
        """Bridge-Net's outputs that ALC and ATG need, in one pass.

        Args:
            audio: B clips.
            ids: [B, L].
            mask: [B, L] bool, True: real.
            contrast: the queries and the text by itself are wanted; else only what ATG needs, if it is on.
        """
        if contrast and self.atg:
            return self.bridge.encode_unimodal_and_causal(audio, ids, decoder_input(ids, self.dec_token), mask)
        if self.atg:
            return self.bridge.encode_pair(audio, decoder_input(ids, self.dec_token), mask, masks.causal)
        if contrast:
            output = self.bridge.encode_pair(audio, ids, mask, masks.unimodal, length=1)
            return replace(output, text=None, lone_text=output.text)
        return BridgeOutput(queries=None, text=None)

    def shared(self, output: BridgeOutput) -> tuple[Tensor, Tensor]:
        """Clips [B, Q, E] and texts [B, E] in the shared space, L2-normalised, of what `represent` gave."""
        assert output.lone_text is not None
        return self._shared_queries(output), self._shared_text(output.lone_text)

    def terms(self, draws: Tensor, text_mask: Tensor, **_: Tensor) -> dict[str, Tensor]:
        """By how much each loss of a batch, by name, counts beside those of other batches: its pairs, or its tokens.

        Args:
            draws: as in `forward`; so are the others.
            text_mask: as in `forward`.
        """
        pairs, tokens = torch.tensor(len(draws), device=draws.device), text_mask[:, 1:].sum()
        on = {"alc": (self.alc, pairs), "alm": (self.alm, pairs), "atg": (self.atg, tokens)}
        return {name: count for name, (is_on, count) in on.items() if is_on}

    def embed_audio(self, audio_features: Tensor, audio_mask: Tensor) -> Tensor:
        """Clips in the shared space: [B, Q, E], L2-normalised."""
        audio = self.bridge.project_audio(audio_features, audio_mask)
        return self._shared_queries(self.bridge.encode_queries(audio))

    def embed_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Texts in the shared space: [B, E], L2-normalised."""
        output = self.bridge.encode_text(ids, mask, length=1)
        assert output.text is not None
        return self._shared_text(output.text)

    def match(self, audio: AudioKeysValues | Sequence[AudioKeysValues], ids: Tensor, mask: Tensor) -> Tensor:
        """Matching logits [B, 2] of B pairs, averaged over queries."""
        output = self.bridge.encode_pair(audio, ids, mask, length=0)
        assert output.queries is not None
        return self.matching_head(output.queries).mean(dim=1)

    def scores(self, clips: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Similarities over temperature [B, G]: this rank's clips by all texts, and its texts by all clips.

        Args:
            clips: [B, Q, E] from `embed_audio`.
            texts: [B, E] from `embed_text`.
        """
        all_clips, all_texts = gather.all_rows(clips), gather.all_rows(texts)
        self.temperature.data.clamp_(*TEMPERATURE_RANGE)
        return similarity(clips, all_texts) / self.temperature, similarity(all_clips, texts).T / self.temperature

    def contrast(self, audio_to_text: Tensor, text_to_audio: Tensor) -> Tensor:
        """ALC's loss of `scores`, weighted so that the mean over ranks is that of the global batch."""
        device = audio_to_text.device
        own = gather.own_columns(len(audio_to_text), device)
        loss = alc_loss(audio_to_text, text_to_audio, own, self.label_smoothing)
        return gather.share(len(audio_to_text), device) * loss

    def negatives(
        self, audio_to_text: Tensor, text_to_audio: Tensor, ids: Tensor, mask: Tensor, draws: Tensor
    ) -> Negatives:
        """Hard negatives among the global batch's clips and texts, by `scores`."""
        captions = gather.all_rows(ids.masked_fill(~mask, PADDING), fill=PADDING)  # [G, L]
        own = gather.own_columns(len(ids), ids.device)
        clips, texts, valid = self._negatives(audio_to_text, text_to_audio, captions, own, draws)
        return Negatives(clips, captions[own], captions[texts], valid.unflatten(0, (3, -1)))

    def _shared_queries(self, queries: BridgeOutput) -> Tensor:
        assert queries.queries is not None
        return functional.normalize(self.audio_projection(queries.queries), dim=-1)

    def _shared_text(self, text: Tensor) -> Tensor:
        return functional.normalize(self.text_projection(text[:, 0]), dim=-1)

    def _contrast_part(self, part: Part, audio: AudioKeysValues, output: BridgeOutput) -> dict[str, Tensor]:
        """ALC and ALM of a part of an accumulated batch."""
        losses = {}
        if part.alc is not None:
            losses["alc"] = part.alc.tied(*self.shared(output), self.temperature)
        if part.alm is not None:
            wrong_audio = self.bridge.project_audio(*part.alm.wrong_audio)
            losses["alm"] = part.alm.weight * self._matching(audio, wrong_audio, part.alm.negatives)
        return losses

    def _negatives(
        self, audio_to_text: Tensor, text_to_audio: Tensor, captions: Tensor, own: Tensor, draws: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Hard negatives among all captions [G, L] and their clips.

        Returns:
            clips [B] for the own texts, texts [B] for the own clips, and which of [own pairs; clips with those texts;
            texts with those clips] are valid, [3 B] bool.
        """
        all_draws = gather.all_rows(draws)
        forbidden = same_caption(captions[own], captions)
        clips, clips_valid = draw_negatives(text_to_audio, forbidden, pair_noise(draws, all_draws, salt=1))
        texts, texts_valid = draw_negatives(audio_to_text, forbidden, pair_noise(draws, all_draws, salt=2))
        return clips, texts, torch.cat([torch.ones_like(clips_valid), texts_valid, clips_valid])

    def _audio_of(self, clips: Tensor, audio: AudioKeysValues, features: Tensor, mask: Tensor) -> AudioKeysValues:
        """Clips of the global batch; another rank's are fetched as frozen features and projected here."""
        if gather.world_size() == 1:
            return audio.select(clips)
        return self.bridge.project_audio(*gather.fetch_rows(clips, features, mask))

    def _matching(self, audio: AudioKeysValues, wrong_audio: AudioKeysValues, negatives: Negatives) -> Tensor:
        """Mean loss of the valid among B pairs, B clips with a wrong text and B texts with a wrong clip."""
        captions = negatives.captions
        ids = torch.cat([captions, negatives.wrong_captions, captions])
        logits = self.match([audio.repeated(2), wrong_audio], ids.clamp(min=0), ids != PADDING)
        labels = (torch.arange(len(ids), device=ids.device) < len(captions)).long() * MATCHED
        return alm_loss(logits, labels, negatives.valid.flatten())

    def _generation(self, output: BridgeOutput, ids: Tensor, mask: Tensor) -> Tensor:
        assert output.text is not None
        embeddings = self.bridge.word_embeddings.weight
        return atg_loss(
            output.text, ids, mask, lambda hidden: self.language_head(hidden, embeddings), self.label_smoothing
        )
