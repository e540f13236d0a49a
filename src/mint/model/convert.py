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
AUDIO_SIDE = r"queries$|audio_norm\.|blocks\.\d+\.cross_attention\."
"""Pattern of Bridge-Net's names for what a BERT does not have."""
TEXT_SIDE = r"(word|position)_embeddings\.|blocks\.\d+\.text_feed_forward\."
"""Pattern of Bridge-Net's names for what only text uses."""
AUDIO_READERS = r"\.cross_attention\.(key|value)\.weight$"
"""Pattern of Bridge-Net's names for the weights that read the audio's features."""


@dataclass(frozen=True)
class LoadReport:
    """Which weights Bridge-Net took from a checkpoint."""

    copied: tuple[str, ...]
    """Bridge-Net's names that have the checkpoint's values."""
    new: tuple[str, ...]
    """Bridge-Net's names that keep their random start."""
    left: tuple[str, ...]
    """The checkpoint's names that were not used."""

    def __str__(self) -> str:
        """One line for the log, with the kinds of what is new and of what was left."""
        counts = [f"{len(self.copied)} tensors copied"]
        for names, what in ((self.new, "new"), (self.left, "of the checkpoint left")):
            # "blocks.3.cross_attention.key.weight" is of the kind "cross_attention".
            kinds = dict.fromkeys(re.sub(r"^blocks\.\d+\.", "", name).partition(".")[0] for name in names)
            counts.append(f"{len(names)} {what} ({', '.join(kinds)})" if names else f"none {what}")
        return ", ".join(counts)


def qformer_name(name: str) -> str:
    """Return the Q-Former's name of a Bridge-Net parameter; `audio_norm` has none: BLIP-2 keeps it elsewhere."""
    for pattern, replacement in QFORMER_NAMES:
        name = re.sub(f"^{pattern}$", replacement, name)
    return name


def to_qformer(bridge: BridgeNet) -> dict[str, Tensor]:
    """Return Bridge-Net's weights under the Q-Former's names; `query_tokens` is among them, `audio_norm` is not."""
    return {qformer_name(name): tensor for name, tensor in bridge.state_dict().items() if "audio_norm" not in name}


def load_qformer(bridge: BridgeNet, weights: Mapping[str, Tensor]) -> LoadReport:
    """Copy the Q-Former of a BLIP-2 or InstructBLIP checkpoint: its own state, or that of the model around it.

    What stays new: where the audio's features have another width than the images', the keys and values of the
    cross-attention; the text side, if the checkpoint has none, as those of BLIP-2 before a language model. [DEC] is the
    Q-Former's own, its last word, where the tokenizer does not know it and where it does.

    Raises:
        MintError: a tensor is missing or has another shape than Bridge-Net's.
    """
    plain: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        name = name.removeprefix("model.").removeprefix("qformer.")
        name = re.sub(r"^layernorm\.", "embeddings.layernorm.", name)  # BLIP-2's place for it
        plain[name] = tensor

    wanted = {name: qformer_name(name) for name in bridge.state_dict() if not name.startswith("audio_norm")}

    # Nothing at all of the text side: it stays new. A part of it: the rest is missing, and `_copy` says so.
    text_side = [name for name in wanted if re.match(TEXT_SIDE, name)]
    if plain.keys().isdisjoint(wanted[name] for name in text_side):
        for name in text_side:
            del wanted[name]

    # Keys and values of features of another width stay new: their weights, and the biases beside them.
    width = bridge.audio_norm.normalized_shape[0]
    for name, source in list(wanted.items()):
        if re.search(AUDIO_READERS, name) and source in plain and plain[source].shape[1] != width:
            del wanted[name]
            del wanted[f"{name.removesuffix('.weight')}.bias"]

    words = plain.get(wanted.get("word_embeddings.weight", ""))
    return _copy(bridge, wanted, plain, "a Q-Former of transformers", new_word=None if words is None else words[-1])


def load_bert(bridge: BridgeNet, weights: Mapping[str, Tensor]) -> LoadReport:
    """Start Bridge-Net from a BERT checkpoint (paper, section 2.1): queries and cross-attention stay new.

    A shorter Bridge-Net takes blocks spaced evenly through the checkpoint, not the lowest ones: a text's meaning
    reaches [CLS] in the last block. Over 200 captions, MiniLM's normalised [CLS] lies 0.56 from its mean after all six
    blocks, 0.001 after the lowest three, 0.46 after blocks 0, 2 and 5; one [CLS] for all texts stops ALC.

    Both feed-forwards of a block start as copies of BERT's one. The names may be those of the first BERT files, which
    call the LayerNorms' weight and bias gamma and beta.

    Raises:
        MintError: a tensor is missing or has another shape than Bridge-Net's.
    """
    plain: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        name = re.sub(r"\.gamma$", ".weight", name.removeprefix("bert."))
        plain[re.sub(r"\.beta$", ".bias", name)] = tensor

    # BERT adds the embedding of token type 0 to every position; Bridge-Net has no token types.
    token_type = plain.pop("embeddings.token_type_embeddings.weight", None)
    positions = "embeddings.position_embeddings.weight"
    if token_type is not None and positions in plain:
        plain[positions] = plain[positions] + token_type[0]

    blocks = spaced_blocks(len(bridge.blocks), plain)
    wanted = {}
    for name in bridge.state_dict():
        # BERT has never seen audio: queries and cross-attention stay new.
        if re.match(AUDIO_SIDE, name):
            continue
        source = qformer_name(name.replace("query_feed_forward", "text_feed_forward"))
        source = source.replace(".attention.attention.", ".attention.self.")
        source = re.sub(r"(?<=^encoder\.layer\.)\d+", lambda match: str(blocks[int(match[0])]), source)
        wanted[name] = source.replace("embeddings.layernorm", "embeddings.LayerNorm")

    words = plain.get("embeddings.word_embeddings.weight")
    return _copy(bridge, wanted, plain, "a BERT", new_word=None if words is None else words.mean(dim=0))


def spaced_blocks(wanted: int, names: Iterable[str]) -> list[int]:
    """Return which of a checkpoint's blocks to take: evenly spaced, the first and the last among them."""
    numbers = []
    for name in names:
        if match := re.match(r"encoder\.layer\.(\d+)\.", name):
            numbers.append(int(match[1]))
    last = max(numbers, default=wanted - 1)
    if wanted == 1:
        return [last]
    return [round(index * last / (wanted - 1)) for index in range(wanted)]


@torch.no_grad()
def _copy(
    bridge: BridgeNet, wanted: Mapping[str, str], weights: Mapping[str, Tensor], form: str, new_word: Tensor | None
) -> LoadReport:
    """Copy the weights that are wanted, all of which must be in the checkpoint.

    Args:
        bridge: changed in place.
        wanted: the checkpoint's name for each of Bridge-Net's names.
        weights: the checkpoint's.
        form: what kind of checkpoint it should be, for the errors.
        new_word: [D], the embedding of [DEC], where the checkpoint has a word less than Bridge-Net.
    """
    # Once each: both feed-forwards of a block may come from one.
    missing = list(dict.fromkeys(source for source in wanted.values() if source not in weights))
    if missing:
        names = ", ".join(list(weights)[:2]) or "nothing"
        raise MintError(
            f"the checkpoint lacks {missing[0]} of {form} (missing in all: {len(missing)}) and has {names}, ...; "
            "give one of BERT, BLIP-2 or InstructBLIP as transformers names them"
        )

    state = bridge.state_dict()
    for name, source_name in wanted.items():
        target, source = state[name], weights[source_name]
        # [DEC] is the last word of Bridge-Net's tokenizer, and no checkpoint of BERT has it.
        if name == "word_embeddings.weight" and len(source) == len(target) - 1 and new_word is not None:
            source = torch.cat([source, new_word[None]])
        if source.shape != target.shape:
            raise MintError(
                f"{name} has shape {tuple(target.shape)} in Bridge-Net, {tuple(source.shape)} in the checkpoint "
                f"({source_name}); choose a bridge of the checkpoint's sizes, and its own tokenizer"
            )
        target.copy_(source)

    used = set(wanted.values())
    left = tuple(name for name in weights if name not in used)
    return LoadReport(tuple(wanted), tuple(name for name in state if name not in wanted), left)
