"""InstructBLIP's own forward in transformers, fed with audio features, with the weights of one of our models.

Nothing of its forward is rewritten: the vision tower is replaced by the LayerNorm that stands before the Q-Former, so
that features go in where pixels did, and the language model is the very same frozen object as ours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mint.language.causal import IGNORED, CausalLanguageModel
from mint.model.convert import to_qformer
from mint.model.stage2 import Stage2
from plain_stage1 import qformer_config

SMALLEST: dict[str, Any] = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
}
"""Of the parts that are replaced as soon as they are made."""


class FeatureTower(nn.Module):
    """Stands in for the vision tower: normalises features [B, T, audio width] that come in place of pixels."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(norm.normalized_shape[0])
        self.norm.load_state_dict(norm.state_dict())

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """Features as the Q-Former sees them."""
        return BaseModelOutputWithPooling(last_hidden_state=self.norm(pixel_values))


def instructblip(stage: Stage2) -> Any:
    """InstructBLIP at the sizes and with the weights of our stage 2.

    Args:
        stage: ours, instruction-aware; its language model is shared, not copied.
    """
    language = stage.language
    assert isinstance(language, CausalLanguageModel)
    qformer = qformer_config(stage.bridge).to_dict()
    for name in ("use_qformer_text_input", "model_type"):
        qformer.pop(name)
    text = language.model.config
    config = InstructBlipConfig(
        vision_config={**SMALLEST, "hidden_size": qformer["encoder_hidden_size"], "image_size": 14, "patch_size": 14},
        qformer_config=qformer,
        text_config={"model_type": "opt", **SMALLEST, "ffn_dim": 8, "word_embed_proj_dim": 8, "vocab_size": 8},
        num_query_tokens=stage.bridge.num_queries,
        image_token_index=text.vocab_size - 1,
    )
    model: Any = InstructBlipForConditionalGeneration(config)
    model.config.text_config = text
    model.language_model = language.model
    model.vision_model = FeatureTower(stage.bridge.audio_norm)
    weights = to_qformer(stage.bridge)
    model.query_tokens = nn.Parameter(weights.pop("query_tokens").clone())

    # The last block's feed-forward of the text, whose outputs nobody reads, is dropped in ours and random here.
    last = f"encoder.layer.{len(stage.bridge.blocks) - 1}."
    keys = model.qformer.load_state_dict(weights, strict=False)
    assert not keys.unexpected_keys
    assert all(name.startswith((f"{last}intermediate.", f"{last}output.")) for name in keys.missing_keys)

    model.language_projection = nn.Linear(stage.bridge.width, language.width)
    model.language_projection.load_state_dict(stage.projection.state_dict())
    return model


def arguments(batch: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """A batch of `Stage2.forward` as InstructBLIP's forward takes it: image tokens stand before prompt and answer."""
    count, queries = len(batch["labels"]), model.config.num_query_tokens
    images = torch.full((count, queries), model.config.image_token_id, device=batch["labels"].device)
    return {
        "pixel_values": batch["audio_features"],
        "qformer_input_ids": batch["instruction_ids"],
        "qformer_attention_mask": batch["instruction_mask"].long(),
        "input_ids": torch.cat([images, batch["prompt_ids"]], dim=1),
        "attention_mask": torch.cat([torch.ones_like(images), batch["prompt_mask"].long()], dim=1),
        "labels": torch.cat([torch.full_like(images, IGNORED), batch["labels"]], dim=1),
    }
