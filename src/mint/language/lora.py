"""LoRA: low-rank adapters in a language model whose own weights stay frozen (Hu et al., 2021).

Not in the paper, whose language model is left as it is. The adapters are peft's, put into the model's layers in place:
training, ranking and generation then use them without any change.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from torch import nn

from mint.types import MintError

NAME = "default"
"""Name that peft gives to a model's only adapter."""


def attach_lora(model: Any, *, rank: int, alpha: int, dropout: float, targets: Sequence[str] = ()) -> nn.ModuleDict:
    """Put adapters into a frozen model of transformers; they change nothing until they are trained.

    Args:
        model: the model, which is changed in place.
        rank: rank of the matrices.
        alpha: what they add is multiplied by alpha / rank.
        dropout: probability of dropout on their input.
        targets: ends of the names of the layers that get an adapter; none: those that peft knows for the model.

    Returns:
        The adapters' layers by the name of the layer that each is in. They are what is trained and saved; as a child of
        the stage they also change to training mode with it.

    Raises:
        MintError: peft is not installed, or there are no such layers, or they are the embeddings.
    """
    if importlib.util.find_spec("peft") is None:
        raise MintError("language.lora needs the package peft; pip install 'mint-audio[lora]'")

    import peft
    from peft.tuners.lora import LoraLayer

    config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(targets) or None)
    try:
        peft.inject_adapter_in_model(config, model, adapter_name=NAME)
    except (ValueError, NotImplementedError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise MintError(f"language.lora.targets {list(targets)}: {reason}; name layers inside the blocks") from None
    if isinstance(model.get_input_embeddings(), LoraLayer) or isinstance(model.get_output_embeddings(), LoraLayer):
        raise MintError(f"language.lora.targets {list(targets)} includes the embeddings; name layers inside the blocks")

    # Handed over as modules of their own: the model itself is frozen, and its state is not saved.
    adapters = nn.ModuleDict()
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            layer.eval()  # type: ignore[attr-defined]  # it is a module too
            layers = {"A": layer.lora_A[NAME], "B": layer.lora_B[NAME], "dropout": layer.lora_dropout[NAME]}
            # A key must hold no dots. Adapters are trained in float32, in a model in bf16 too.
            adapters[name.replace(".", "/")] = nn.ModuleDict(layers).float()

    if any(parameter.is_meta for parameter in adapters.parameters()):
        adapters.to_empty(device="cpu")  # in a model without weights, of which only the sizes are asked
    return adapters
