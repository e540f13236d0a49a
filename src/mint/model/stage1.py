"""Stage 1: audio-language representation learning (paper, section 2.2).

Wires the three objectives to Bridge-Net. One step on B pairs of a clip and a text looks like this (q: the queries of a
clip, g: its text generated from [DEC] on, t: its text by itself from [CLS] on):

    features [B, T, A] -- project_audio, once --> keys and values of B clips, for all passes

    pass 1, B rows    q attends to its clip    [ q q g g g t t t ]    mask: unimodal_and_causal
        outputs of q, and of [CLS] of t  --> shared space --> similarities [B, B] --> ALC
        outputs of g                     --> language head                        --> ATG

    similarities --> hard negatives: a wrong clip for each text, a wrong text for each clip

    pass 2, 3 B rows  q attends to a clip      [ q q t t t ]          mask: bidirectional
        row 1 to B            clip b,       text b           matched
        row B + 1 to 2 B      clip b,       wrong text of b  not matched
        row 2 B + 1 to 3 B    wrong clip,   text b           not matched
        outputs of q                     --> matching head, mean over queries     --> ALM

The published code runs separate passes for ALC, ATG and ALM; losses and gradients are equal to its own.
`benchmarks/plain_stage1.py` is that recipe, written plainly: the same computation, and a test holds the two equal.

With several ranks, ALC and ALM work on the global batch (see `gather.py`): a rank's losses are weighted so that their
mean over ranks, and that of their gradients, is what one process with the whole batch would have. A batch may also be a
micro-batch of a larger one that is accumulated (see `mint.training.accumulation`); the same then holds of the mean over
micro-batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from mint.model import gather, masks
from mint.model.accumulated import MicroBatch, Negatives
from mint.model.attention import AudioKeysValues
from mint.model.bridge_net import BridgeNet
from mint.model.objectives.alc import alc_loss, similarity
from mint.model.objectives.alm import MATCHED, alm_loss, draw_negatives, pair_noise, same_caption
from mint.model.objectives.atg import LanguageHead, atg_loss, decoder_input
from mint.types import BridgeOutput

TEMPERATURE_RANGE = (0.001, 0.5)
"""The range in which the learnable temperature is kept (BLIP-2 leaves it free)."""
PADDING = -1
"""Token id of the padding in captions that are compared, or that travel between ranks."""


class Stage1(nn.Module):
    """Bridge-Net with the heads of stage 1; those of an objective that is off are not trained.

    Args:
        bridge: the stack.
        dec_token: id of [DEC].
        shared_width: E.
        temperature: initial temperature.
        label_smoothing: label smoothing of ALC and ATG.
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
        # All heads are drawn, so that the weights of one do not depend on which objectives are on.
        matching_head = nn.Linear(bridge.width, 2)
        language_head = LanguageHead(width=bridge.width, vocab_size=bridge.word_embeddings.num_embeddings)

        # The heads of an objective that is off are dropped, or, if similarities are wanted all the same, not trained.
        self.audio_projection.requires_grad_(alc)
        self.text_projection.requires_grad_(alc)
        self.temperature.requires_grad_(alc)
        self.matching_head = matching_head if alm else None
        self.language_head = language_head if atg else None

    def forward(
        self,
        audio_features: Tensor,
        audio_mask: Tensor,
        text_ids: Tensor,
        text_mask: Tensor,
        draws: Tensor,
        micro_batch: MicroBatch | None = None,
    ) -> dict[str, Tensor]:
        """Return the losses of a batch of pairs.

        Args:
            audio_features: [B, T, audio width] from the frozen encoder.
            audio_mask: [B, T] bool, True: real.
            text_ids: [B, L], [CLS] first.
            text_mask: [B, L] bool, True: real.
            draws: [B] int64, a number for each example that seeds the draw of its negatives.
            micro_batch: what is known of the whole batch, where this is a micro-batch of it.

        Returns:
            `loss`, the sum of the objectives that are on, and each of them by name. With several ranks, their mean
            over ranks is the loss of the global batch; with several micro-batches, their mean over these.
        """
        # Pass 1: what ALC and ATG need.
        audio = self.bridge.project_audio(audio_features, audio_mask)
        contrast = self.alc or self.alm if micro_batch is None else micro_batch.alc is not None
        output = self.represent(audio, text_ids, text_mask, contrast)
        losses: dict[str, Tensor] = {}

        # ALC, and pass 2, which is ALM's.
        if micro_batch is not None:
            losses |= self._accumulated_losses(micro_batch, audio, output)
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
            if micro_batch is None:
                weight = gather.share(text_mask[:, 1:].sum(), text_ids.device)
            else:
                weight = micro_batch.atg_weight
            losses["atg"] = weight * self._generation(output, text_ids, text_mask)

        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def represent(self, audio: AudioKeysValues, ids: Tensor, mask: Tensor, contrast: bool) -> BridgeOutput:
        """Run Bridge-Net once for what ALC and ATG need.

        Args:
            audio: B clips.
            ids: [B, L].
            mask: [B, L] bool, True: real.
            contrast: whether the queries and the text by itself are wanted; else only what ATG needs, if it is on.
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
        """Map the output of `represent` into the shared space: clips [B, Q, E] and texts [B, E], L2-normalised."""
        assert output.lone_text is not None
        return self._shared_queries(output), self._shared_text(output.lone_text)

    def terms(self, draws: Tensor, text_mask: Tensor, **_: Tensor) -> dict[str, Tensor]:
        """Return how many terms each loss of a batch is a mean of, by name: its pairs, or its tokens.

        A loss counts by this number beside the same loss of other batches. The arguments are those of `forward`.
        """
        pairs = torch.tensor(len(draws), device=draws.device)
        tokens = text_mask[:, 1:].sum()
        terms: dict[str, Tensor] = {}
        if self.alc:
            terms["alc"] = pairs
        if self.alm:
            terms["alm"] = pairs
        if self.atg:
            terms["atg"] = tokens
        return terms

    def embed_audio(self, audio_features: Tensor, audio_mask: Tensor) -> Tensor:
        """Embed clips in the shared space: [B, Q, E], L2-normalised."""
        audio = self.bridge.project_audio(audio_features, audio_mask)
        return self._shared_queries(self.bridge.encode_queries(audio))

    def embed_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embed texts in the shared space: [B, E], L2-normalised."""
        output = self.bridge.encode_text(ids, mask, length=1)
        assert output.text is not None
        return self._shared_text(output.text)

    def match(self, audio: AudioKeysValues | Sequence[AudioKeysValues], ids: Tensor, mask: Tensor) -> Tensor:
        """Return the matching logits [B, 2] of B pairs, averaged over queries."""
        output = self.bridge.encode_pair(audio, ids, mask, length=0)
        assert output.queries is not None
        assert self.matching_head is not None
        return self.matching_head(output.queries).mean(dim=1)

    def scores(self, clips: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Return similarities over temperature, [B, G] each: this rank's clips by all texts, its texts by all clips.

        Args:
            clips: [B, Q, E] from `embed_audio`.
            texts: [B, E] from `embed_text`.
        """
        all_clips, all_texts = gather.all_rows(clips), gather.all_rows(texts)  # [G, Q, E] and [G, E]
        self.temperature.data.clamp_(*TEMPERATURE_RANGE)

        audio_to_text = similarity(clips, all_texts) / self.temperature
        text_to_audio = similarity(all_clips, texts).T / self.temperature
        return audio_to_text, text_to_audio

    def contrast(self, audio_to_text: Tensor, text_to_audio: Tensor) -> Tensor:
        """Return ALC's loss from `scores`, weighted so that the mean over ranks is that of the global batch."""
        count, device = len(audio_to_text), audio_to_text.device
        targets = gather.own_columns(count, device)  # [B], the column of each row's own pair
        loss = alc_loss(audio_to_text, text_to_audio, targets, self.label_smoothing)
        return gather.share(count, device) * loss

    def negatives(
        self, audio_to_text: Tensor, text_to_audio: Tensor, ids: Tensor, mask: Tensor, draws: Tensor
    ) -> Negatives:
        """Draw hard negatives among the global batch's clips and texts, in proportion to the softmax of `scores`.

        Args:
            audio_to_text: [B, G].
            text_to_audio: [B, G].
            ids: [B, L].
            mask: [B, L] bool, True: real.
            draws: [B] int64, a number for each example that seeds its draws.
        """
        captions = gather.all_rows(ids.masked_fill(~mask, PADDING), fill=PADDING)  # [G, L]
        all_draws = gather.all_rows(draws)  # [G]
        columns = gather.own_columns(len(ids), ids.device)  # [B], the columns of this rank's own pairs
        forbidden = same_caption(captions[columns], captions)  # [B, G]

        clips, clips_valid = draw_negatives(text_to_audio, forbidden, pair_noise(draws, all_draws, salt=1))
        texts, texts_valid = draw_negatives(audio_to_text, forbidden, pair_noise(draws, all_draws, salt=2))

        # In the order of the rows of pass 2: the pairs, the clips with a wrong text, the texts with a wrong clip.
        valid = torch.stack([torch.ones_like(clips_valid), texts_valid, clips_valid])  # [3, B]
        return Negatives(clips, captions[columns], captions[texts], valid)

    def _shared_queries(self, queries: BridgeOutput) -> Tensor:
        assert queries.queries is not None
        return functional.normalize(self.audio_projection(queries.queries), dim=-1)

    def _shared_text(self, text: Tensor) -> Tensor:
        return functional.normalize(self.text_projection(text[:, 0]), dim=-1)

    def _accumulated_losses(
        self, micro_batch: MicroBatch, audio: AudioKeysValues, output: BridgeOutput
    ) -> dict[str, Tensor]:
        """Return ALC and ALM of a micro-batch, by what is known of the whole batch."""
        losses = {}
        if micro_batch.alc is not None:
            losses["alc"] = micro_batch.alc.tied(*self.shared(output), self.temperature)
        if micro_batch.alm is not None:
            alm = micro_batch.alm
            wrong_audio = self.bridge.project_audio(*alm.wrong_audio)
            losses["alm"] = alm.weight * self._matching(audio, wrong_audio, alm.negatives)
        return losses

    def _audio_of(self, clips: Tensor, audio: AudioKeysValues, features: Tensor, mask: Tensor) -> AudioKeysValues:
        """Return clips of the global batch; those of other ranks are fetched as frozen features and projected here."""
        if gather.world_size() == 1:
            return audio.select(clips)
        return self.bridge.project_audio(*gather.fetch_rows(clips, features, mask))

    def _matching(self, audio: AudioKeysValues, wrong_audio: AudioKeysValues, negatives: Negatives) -> Tensor:
        """Return the mean loss over the valid among B pairs, B clips with a wrong text, B texts with a wrong clip."""
        captions = negatives.captions
        ids = torch.cat([captions, negatives.wrong_captions, captions])  # [3 B, L]

        # The first 2 B rows attend to the B clips twice over, the last B rows to the wrong clips.
        logits = self.match([audio.repeated(2), wrong_audio], ids.clamp(min=0), ids != PADDING)  # [3 B, 2]
        labels = (torch.arange(len(ids), device=ids.device) < len(captions)).long() * MATCHED
        return alm_loss(logits, labels, negatives.valid.flatten())

    def _generation(self, output: BridgeOutput, ids: Tensor, mask: Tensor) -> Tensor:
        assert output.text is not None
        language_head = self.language_head
        assert language_head is not None

        def head(hidden: Tensor) -> Tensor:
            return language_head(hidden, self.bridge.word_embeddings.weight)

        return atg_loss(output.text, ids, mask, head, self.label_smoothing)
