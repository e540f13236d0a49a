"""From recipes to objects: the only place that maps names to classes. Late imports: parts load alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from mint.assets import resolve
from mint.config import BridgeConfig, EncoderConfig, LanguageConfig, Recipe
from mint.model.bridge_net import BridgeNet
from mint.model.convert import LoadReport, load_bert
from mint.model.freeze import freeze
from mint.types import AudioEncoder, LanguageModel, MintError

if TYPE_CHECKING:
    from mint.model.stage1 import Stage1
    from mint.model.stage2 import Stage2


def build_encoder(config: EncoderConfig) -> AudioEncoder:
    """The frozen audio encoder."""
    if config.family == "tiny":
        from mint.encoders.tiny import TinyEncoder

        return TinyEncoder()
    from mint.encoders.yamnet import YamNet

    return YamNet.from_folder(Path(resolve(config.weights)))


def build_tokenizer(config: BridgeConfig) -> Any:
    """Bridge-Net's tokenizer: that of the checkpoint it starts from."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(resolve(config.weights), revision=config.revision)


def build_bridge(config: BridgeConfig, audio_width: int, vocab_size: int) -> tuple[BridgeNet, LoadReport]:
    """Bridge-Net, started from a BERT checkpoint (paper, section 2.1).

    Args:
        config: its recipe.
        audio_width: of the frozen features.
        vocab_size: of the tokenizer; [DEC] is added after it.

    Returns:
        The stack and what the checkpoint gave.
    """
    from transformers import AutoConfig, AutoModel

    source = resolve(config.weights)
    sizes = AutoConfig.from_pretrained(source, revision=config.revision)
    if config.num_layers > sizes.num_hidden_layers:
        raise MintError(
            f"bridge.num_layers is {config.num_layers}, but {config.weights} has {sizes.num_hidden_layers} blocks; "
            "choose as many or fewer"
        )
    bridge = BridgeNet(
        vocab_size=vocab_size + 1,
        width=sizes.hidden_size,
        num_layers=config.num_layers,
        num_heads=sizes.num_attention_heads,
        intermediate=sizes.intermediate_size,
        max_positions=sizes.max_position_embeddings,
        audio_width=audio_width,
        num_queries=config.num_queries,
        cross_attention_every=config.cross_attention_every,
        dropout=config.dropout,
        layer_norm_eps=sizes.layer_norm_eps,
    )
    bert = AutoModel.from_pretrained(source, revision=config.revision, dtype=torch.float32, add_pooling_layer=False)
    return bridge, load_bert(bridge, bert.state_dict())


def build_language(config: LanguageConfig, device: torch.device | str = "cpu") -> LanguageModel:
    """The frozen language model, on its device."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mint.language.causal import CausalLanguageModel

    source = resolve(config.weights)
    if list(Path(source).glob("*.gguf")):
        from mint.language.gguf import converted

        source = str(converted(Path(source)))
    model = AutoModelForCausalLM.from_pretrained(source, revision=config.revision, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source, revision=config.revision)
    freeze(model.to(device))
    return CausalLanguageModel(model, tokenizer, identity=f"{config.weights}@{config.revision or 'local'}")


def build_stage1(recipe: Recipe, audio_width: int, vocab_size: int) -> Stage1:
    """Stage 1's model, its new weights drawn by the recipe's seed."""
    from mint.model.stage1 import Stage1

    assert recipe.objectives is not None
    torch.manual_seed(recipe.seed)
    bridge, _ = build_bridge(recipe.bridge, audio_width, vocab_size)
    return Stage1(
        bridge=bridge,
        dec_token=vocab_size,
        shared_width=recipe.objectives.shared_width,
        temperature=recipe.objectives.temperature,
        label_smoothing=recipe.objectives.label_smoothing,
        alc=recipe.objectives.alc,
        alm=recipe.objectives.alm,
        atg=recipe.objectives.atg,
    )


def build_stage2(recipe: Recipe, audio_width: int, vocab_size: int, language: LanguageModel) -> Stage2:
    """Stage 2's model; Bridge-Net from the stage-1 run that the recipe names, else from its BERT checkpoint."""
    from mint.model.stage2 import Stage2

    torch.manual_seed(recipe.seed)
    bridge, _ = build_bridge(recipe.bridge, audio_width, vocab_size)
    if recipe.start is not None:
        weights = load_weights(Path(recipe.start))
        bridge.load_state_dict({name[7:]: tensor for name, tensor in weights.items() if name.startswith("bridge.")})
    return Stage2(bridge=bridge, language=language, instruction_aware=recipe.instruction_aware)


def load_weights(run: Path) -> dict[str, torch.Tensor]:
    """The trained weights of a finished run.

    Raises:
        MintError: the folder holds none.
    """
    path = run / "model.safetensors"
    if not path.is_file():
        raise MintError(
            f"{run} holds no model.safetensors; give the folder of a finished run (DIR/stage1 or DIR/stage2)"
        )
    return load_file(path)
