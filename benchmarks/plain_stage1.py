"""BLIP-2's stage 1 written plainly on transformers' Q-Former, with the weights of one of our models.

It follows LAVIS's `blip2_qformer.py`: a pass over the queries, a pass over the text, a matching pass over three batches
(own pairs; texts with a wrong clip; clips with a wrong text) on the audio's features, and a text pass that continues on
the queries' self-attention keys and values. Logits are computed for every position, padding too, and negatives are
drawn by `torch.multinomial` row by row. transformers' Q-Former has no cache of its own, so an attention function that
stores and prepends keys and values stands in for it; what it calls is transformers' own `sdpa`, the default there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, BertConfig, Blip2QFormerConfig, Blip2QFormerModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.bert.modeling_bert import BertLMPredictionHead
from transformers.models.blip_2.modeling_blip_2 import Blip2TextEmbeddings

from mint.model.bridge_net import Block, BridgeNet
from mint.model.convert import to_qformer
from mint.model.objectives.alm import draw_negatives, pair_noise
from mint.model.stage1 import Stage1

REUSE = "sdpa_with_kept_keys_and_values"
Draw = Callable[[Tensor, Tensor, int], Tensor]
"""Scores [B, B], draw numbers [B] and a salt to one negative a row [B]."""


class PlainStage1(nn.Module):
    """The published recipe; its weights are copies of a `Stage1`'s.

    Args:
        stage: our model of the same weights.
    """

    def __init__(self, stage: Stage1) -> None:
        super().__init__()
        bridge = stage.bridge
        config = qformer_config(bridge)
        weights = to_qformer(bridge)
        self.label_smoothing, self.dec_token = stage.label_smoothing, stage.dec_token
        self.query_tokens = nn.Parameter(weights.pop("query_tokens").clone())
        self.ln_audio = nn.LayerNorm(config.encoder_hidden_size)
        self.embeddings: Any = Blip2TextEmbeddings(config)  # type: ignore[no-untyped-call]
        self.qformer: Any = Blip2QFormerModel(config)
        self.qformer.set_attn_implementation(REUSE)
        self.audio_projection = nn.Linear(bridge.width, stage.audio_projection.out_features)
        self.text_projection = nn.Linear(bridge.width, stage.text_projection.out_features)
        self.temperature = nn.Parameter(stage.temperature.detach().clone())
        self.matching_head = nn.Linear(bridge.width, 2)
        head = BertConfig(hidden_size=bridge.width, vocab_size=config.vocab_size)
        self.head: Any = BertLMPredictionHead(head)  # type: ignore[no-untyped-call]
        self._copy(stage, weights)

    def forward(
        self,
        audio_features: Tensor,
        audio_mask: Tensor,
        text_ids: Tensor,
        text_mask: Tensor,
        draws: Tensor,
        draw: Draw | None = None,
    ) -> dict[str, Tensor]:
        """Losses by name; arguments as `Stage1.forward`, and how negatives are drawn (as published, if None)."""
        count, queries = len(text_ids), self.query_tokens.expand(len(text_ids), -1, -1)
        audio = self.ln_audio(audio_features)
        kept: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        query_output = self.qformer(
            query_embeds=queries, encoder_hidden_states=audio, encoder_attention_mask=audio_mask, keep=kept
        ).last_hidden_state
        text_output = self.qformer(
            query_embeds=self.embeddings(text_ids), query_length=0, attention_mask=text_mask
        ).last_hidden_state
        clips = functional.normalize(self.audio_projection(query_output), dim=-1)
        texts = functional.normalize(self.text_projection(text_output[:, 0]), dim=-1)
        to_texts = torch.matmul(clips[:, None], texts[:, :, None]).flatten(2).amax(dim=-1) / self.temperature
        to_clips = torch.matmul(texts[:, None, None], clips.transpose(1, 2)).flatten(2).amax(dim=-1) / self.temperature
        targets = torch.arange(count, device=text_ids.device)
        alc = sum(functional.cross_entropy(s, targets, label_smoothing=0.1) for s in (to_texts, to_clips)) / 2
        draw = draw or draw_as_published
        wrong_clips, wrong_texts = draw(to_clips, draws, 1), draw(to_texts, draws, 2)
        alm = self._matching(audio, audio_mask, text_ids, text_mask, wrong_clips, wrong_texts)
        atg = self._generation(text_ids, text_mask, kept)
        return {"loss": alc + alm + atg, "alc": torch.as_tensor(alc), "alm": alm, "atg": atg}

    def _matching(
        self, audio: Tensor, audio_mask: Tensor, ids: Tensor, mask: Tensor, wrong_clips: Tensor, wrong_texts: Tensor
    ) -> Tensor:
        all_ids = torch.cat([ids, ids, ids[wrong_texts]])
        all_texts = torch.cat([mask, mask, mask[wrong_texts]])
        queries = self.query_tokens.expand(len(all_ids), -1, -1)
        output = self.qformer(
            query_embeds=self.embeddings(all_ids, query_embeds=queries),
            query_length=queries.shape[1],
            attention_mask=torch.cat([mask.new_ones(queries.shape[:2]), all_texts], dim=1),
            encoder_hidden_states=torch.cat([audio, audio[wrong_clips], audio]),
            encoder_attention_mask=torch.cat([audio_mask, audio_mask[wrong_clips], audio_mask]),
        ).last_hidden_state
        logits = self.matching_head(output[:, : queries.shape[1]]).mean(dim=1)
        labels = (torch.arange(len(all_ids), device=ids.device) < len(ids)).long()
        return functional.cross_entropy(logits, labels)

    def _generation(self, ids: Tensor, mask: Tensor, kept: dict[nn.Module, tuple[Tensor, Tensor]]) -> Tensor:
        started = torch.cat([torch.full_like(ids[:, :1], self.dec_token), ids[:, 1:]], dim=1)
        length = ids.shape[1]
        no_later = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril() & mask[:, None]
        seen = torch.cat([mask.new_ones(len(ids), length, self.query_tokens.shape[1]), no_later], dim=2)
        output = self.qformer(
            query_embeds=self.embeddings(started), query_length=0, attention_mask=seen[:, None], reuse=kept
        ).last_hidden_state
        logits = self.head(output)
        return functional.cross_entropy(
            logits[:, :-1].flatten(0, 1),
            ids.masked_fill(~mask, -100)[:, 1:].flatten(),
            label_smoothing=self.label_smoothing,
        )

    @torch.no_grad()
    def _copy(self, stage: Stage1, weights: dict[str, Tensor]) -> None:
        embeddings = "embeddings."
        own = {name.removeprefix(embeddings): weights[name] for name in weights if name.startswith(embeddings)}
        norm = {name: own.pop(name) for name in list(own) if name.startswith("layernorm")}
        rest = {name: weight for name, weight in weights.items() if not name.startswith(embeddings)}
        self.embeddings.load_state_dict(own)
        self.qformer.load_state_dict({**rest, **norm})
        self.ln_audio.load_state_dict(stage.bridge.audio_norm.state_dict())
        for name in ("audio_projection", "text_projection", "matching_head"):
            getattr(self, name).load_state_dict(getattr(stage, name).state_dict())
        head = stage.language_head
        assert head is not None, "the published recipe trains all three objectives"
        self.head.transform.dense.load_state_dict(head.dense.state_dict())
        self.head.transform.LayerNorm.load_state_dict(head.norm.state_dict())
        self.head.decoder.weight = self.embeddings.word_embeddings.weight
        self.head.bias.copy_(head.bias)
        self.head.decoder.bias = self.head.bias


def qformer_config(bridge: BridgeNet) -> Blip2QFormerConfig:
    """The sizes of a bridge as transformers' Q-Former takes them."""
    blocks = [block for block in bridge.blocks if isinstance(block, Block)]
    crossing = [index for index, block in enumerate(blocks) if block.cross_attention is not None]
    return Blip2QFormerConfig(
        vocab_size=bridge.word_embeddings.num_embeddings,
        hidden_size=bridge.width,
        num_hidden_layers=len(blocks),
        num_attention_heads=blocks[0].attention.num_heads,
        intermediate_size=blocks[0].text_feed_forward.expand.out_features,
        max_position_embeddings=bridge.position_embeddings.num_embeddings,
        encoder_hidden_size=bridge.audio_norm.normalized_shape[0],
        cross_attention_frequency=crossing[1] if len(crossing) > 1 else len(blocks),
        hidden_dropout_prob=bridge.dropout.p,
        attention_probs_dropout_prob=bridge.dropout.p,
        use_qformer_text_input=True,
    )


def draw_as_published(scores: Tensor, draws: Tensor, salt: int) -> Tensor:
    """One negative a row by `torch.multinomial`, row by row; draw numbers and salt are not used."""
    weights = scores.detach().softmax(dim=1) + 1e-4
    weights.fill_diagonal_(0)
    drawn = [torch.multinomial(row, 1).item() for row in weights]
    return torch.tensor(drawn, device=scores.device)


def draw_as_ours(scores: Tensor, draws: Tensor, salt: int) -> Tensor:
    """The negatives that `Stage1` draws, to compare losses."""
    itself = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    return draw_negatives(scores, itself, pair_noise(draws, draws, salt))[0]


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    keep: dict[nn.Module, tuple[Tensor, Tensor]] | None = None,
    reuse: dict[nn.Module, tuple[Tensor, Tensor]] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    if keep is not None:
        keep[module] = (key, value)
    if reuse is not None:
        key, value = torch.cat([reuse[module][0], key], dim=2), torch.cat([reuse[module][1], value], dim=2)
    output: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, is_causal=False, **options
    )
    return output


AttentionInterface.register(REUSE, _attend)
AttentionMaskInterface.register(REUSE, sdpa_mask)
