"""ALC, audio-language contrastive learning (paper, section 2.2; after BLIP-2's image-text contrastive loss).

The similarity of a clip and a text is the highest among the clip's queries. Both directions are classified over the
whole global batch with label smoothing.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def similarity(queries: Tensor, texts: Tensor) -> Tensor:
    """Return the similarity of every clip with every text: the maximum over queries.

    Args:
        queries: [N, Q, E], L2-normalised.
        texts: [M, E], L2-normalised.

    Returns:
        [N, M], in [-1, 1].
    """
    # One product for all clips; the maximum is then taken over the queries of each.
    products = queries.flatten(0, 1) @ texts.T  # [N * Q, M]
    return products.unflatten(0, queries.shape[:2]).amax(dim=1)


def alc_loss(audio_to_text: Tensor, text_to_audio: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Return the mean of the cross-entropies of both directions.

    Args:
        audio_to_text: [B, G] similarities over temperature, of this rank's clips with all texts of the global batch.
        text_to_audio: [B, G] likewise, of this rank's texts with all clips.
        targets: [B], the column of each row's own pair.
        label_smoothing: share of the probability that is spread over all columns; 0.1 in BLIP-2.
    """
    # The rows of one direction are no columns of the other: the maximum over queries was taken for each pair.
    audio_side = functional.cross_entropy(audio_to_text, targets, label_smoothing=label_smoothing)
    text_side = functional.cross_entropy(text_to_audio, targets, label_smoothing=label_smoothing)
    return (audio_side + text_side) / 2
