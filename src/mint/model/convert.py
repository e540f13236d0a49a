"""Weights to and from the published formats: BERT checkpoints, and transformers' Q-Former of BLIP-2 and InstructBLIP.

Bridge-Net's names map one to one onto the Q-Former's; BERT's differ from them in a prefix. Two departures when starting
from BERT, both ours: the token-type embedding 0, which BERT adds to every position and the Q-Former lacks, is folded
into the position embeddings, so that a pass over text alone equals BERT's; and rows of new tokens ([DEC]) start at the
mean of the old ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mint.types import MintError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mint.model.bridge_net import BridgeNet

QFORMER_NAMES = (
    (r"queries", r"query_tokens"),
    (r"(word|position)_embeddings\.(.+)", r"embeddings.\1_embeddings.\2"),
    (r"embedding_norm\.(.+)", r"embeddings.layernorm.\1"),
    (r"blocks\.(\d+)\.(.+)", r"encoder.layer.\1.\2"),
    (r"(.+)\.attention\.(query|key|value)\.(.+)", r"\1.attention.attention.\2.\3"),
    (r"(.+)\.cross_attention\.(query|key|value)\.(.+)", r"\1.crossattention.attention.\2.\3"),
    (r"(.+)\.attention\.output\.(.+)", r"\1.attention.output.dense.\2"),
    (r"(.+)\.cross_attention\.output\.(.+)", r"\1.crossattention.output.dense.\2"),
    (r"(.+)\.attention\.norm\.(.+)", r"\1.attention.output.LayerNorm.\2"),
    (r"(.+)\.cross_attention\.norm\.(.+)", r"\1.crossattention.output.LayerNorm.\2"),
    (r"(.+)\.query_feed_forward\.expand\.(.+)", r"\1.intermediate_query.dense.\2"),
    (r"(.+)\.query_feed_forward\.contract\.(.+)", r"\1.output_query.dense.\2"),
    (r"(.+)\.query_feed_forward\.norm\.(.+)", r"\1.output_query.LayerNorm.\2"),
    (r"(.+)\.text_feed_forward\.expand\.(.+)", r"\1.intermediate.dense.\2"),
    (r"(.+)\.text_feed_forward\.contract\.(.+)", r"\1.output.dense.\2"),
    (r"(.+)\.text_feed_forward\.norm\.(.+)", r"\1.output.LayerNorm.\2"),
)
"""Patterns applied in order, each to the whole name: Bridge-Net's to the Q-Former's."""


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint gave."""

    copied: tuple[str, ...]
    """Bridge-Net's names that have the checkpoint's values."""
    new: tuple[str, ...]
    """Bridge-Net's names that keep their random start."""
    left: tuple[str, ...]
    """The checkpoint's names that were not used."""

    def __str__(self) -> str:
        """One line for the log."""
        return f"{len(self.copied)} tensors copied, {len(self.new)} new, {len(self.left)} of the checkpoint left"


def qformer_name(name: str) -> str:
    """The Q-Former's name of one of Bridge-Net's parameters (`audio_norm` has none: BLIP-2 keeps it elsewhere)."""
    for pattern, replacement in QFORMER_NAMES:
        name = re.sub(f"^{pattern}$", replacement, name)
    return name


def to_qformer(bridge: BridgeNet) -> dict[str, Tensor]:
    """Bridge-Net's weights under the Q-Former's names; `query_tokens` among them, `audio_norm` left out."""
    return {qformer_name(name): tensor for name, tensor in bridge.state_dict().items() if "audio_norm" not in name}


def load_qformer(bridge: BridgeNet, weights: Mapping[str, Tensor]) -> LoadReport:
    """Copy the Q-Former of a BLIP-2 or InstructBLIP checkpoint: its own state, or that of the model around it.

    Raises:
        MintError: a tensor has another shape than Bridge-Net's, or none is a Q-Former's.
    """
    plain = {name.removeprefix("model.").removeprefix("qformer."): tensor for name, tensor in weights.items()}
    plain = {re.sub(r"^layernorm\.", "embeddings.layernorm.", name): tensor for name, tensor in plain.items()}  # BLIP-2
    return _copy(bridge, {name: qformer_name(name) for name in bridge.state_dict()}, plain)


def load_bert(bridge: BridgeNet, weights: Mapping[str, Tensor]) -> LoadReport:
    """Start Bridge-Net from a BERT checkpoint (paper, section 2.1): queries and cross-attention stay new.

    A shorter Bridge-Net takes blocks spaced evenly through the checkpoint, not the lowest ones: a text's meaning
    reaches [CLS] in the last block. Over 200 captions, MiniLM's normalised [CLS] lies 0.56 from its mean after all six
    blocks, 0.001 after the lowest three, 0.46 after blocks 0, 2 and 5; one [CLS] for all texts stops ALC.

    Both feed-forwards of a block start as copies of BERT's one. The names may be those of the first BERT files, which
    call the LayerNorms' weight and bias gamma and beta.

    Raises:
        MintError: a tensor has another shape than Bridge-Net's, or none is a BERT's.
    """
    plain = {
        re.sub(r"\.beta$", ".bias", re.sub(r"\.gamma$", ".weight", name.removeprefix("bert."))): tensor
        for name, tensor in weights.items()
    }
    token_type = plain.pop("embeddings.token_type_embeddings.weight", None)
    if token_type is not None:
        positions = "embeddings.position_embeddings.weight"
        plain[positions] = plain[positions] + token_type[0]
    blocks = spaced_blocks(len(bridge.blocks), plain)
    wanted = {}
    for name in bridge.state_dict():
        source = qformer_name(name.replace("query_feed_forward", "text_feed_forward"))
        source = source.replace(".attention.attention.", ".attention.self.")
        source = re.sub(r"(?<=^encoder\.layer\.)\d+", lambda found: str(blocks[int(found[0])]), source)
        wanted[name] = source.replace("embeddings.layernorm", "embeddings.LayerNorm")
    return _copy(bridge, wanted, plain)


def spaced_blocks(wanted: int, names: Iterable[str]) -> list[int]:
    """Which of a checkpoint's blocks to take: evenly spaced, the first and the last among them."""
    numbers = [int(found[1]) for name in names if (found := re.match(r"encoder\.layer\.(\d+)\.", name))]
    last = max(numbers, default=wanted - 1)
    return [round(index * last / (wanted - 1)) if wanted > 1 else last for index in range(wanted)]


@torch.no_grad()
def _copy(bridge: BridgeNet, wanted: Mapping[str, str], weights: Mapping[str, Tensor]) -> LoadReport:
    state = bridge.state_dict()
    copied = [name for name, source in wanted.items() if source in weights]
    if not copied:
        found = ", ".join(list(weights)[:3]) or "nothing"
        raise MintError(
            f"the checkpoint has nothing for Bridge-Net but {found}, ...; give one of BERT, BLIP-2 or InstructBLIP"
        )
    for name in copied:
        target, source = state[name], weights[wanted[name]]
        if name == "word_embeddings.weight" and len(source) < len(target):
            extra = source.mean(dim=0, keepdim=True).expand(len(target) - len(source), -1)
            source = torch.cat([source, extra])
        if source.shape != target.shape:
            raise MintError(
                f"{name} has shape {tuple(target.shape)} in Bridge-Net, {tuple(source.shape)} in the checkpoint "
                f"({wanted[name]}); choose a bridge of the checkpoint's sizes"
            )
        target.copy_(source)
    used = {wanted[name] for name in copied}
    new = tuple(name for name in state if name not in copied)
    return LoadReport(tuple(copied), new, tuple(name for name in weights if name not in used))
