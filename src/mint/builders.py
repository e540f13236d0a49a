"""From recipes to objects, and from finished runs back: the only place that maps names to classes.

Imports are late, so that parts load alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from mint.assets import resolve
from mint.assets.pretrained import check_kind, identify, load_pretrained, load_weights_of
from mint.bridge import TINY, bridge_sizes, build_bridge
from mint.config import EncoderConfig, LanguageConfig, Recipe, load_recipe
from mint.model.bridge_net import BridgeNet
from mint.model.convert import LoadReport
from mint.model.freeze import freeze
from mint.types import AudioEncoder, LanguageModel, MintError

if TYPE_CHECKING:
    from mint.encoders.spectrogram import SpectrogramEncoder
    from mint.encoders.tiny import TinyEncoder
    from mint.encoders.waveform import WaveformEncoder
    from mint.encoders.yamnet import YamNet
    from mint.model.stage1 import Stage1
    from mint.model.stage2 import Stage2

Stage = TypeVar("Stage", bound=nn.Module)


def build_encoder(config: EncoderConfig, device: torch.device | str = "cpu", weightless: bool = False) -> AudioEncoder:
    """The frozen audio encoder, on its device.

    Args:
        config: its recipe.
        device: where it runs.
        weightless: one of transformers has random weights; of its files the configurations are needed alone.
    """
    encoder = _plain_encoder(config, weightless).to(device)
    if config.cache_dtype == "bfloat16":
        encoder.cache_dtype = torch.bfloat16
        encoder.identity += "; features in bfloat16"
    return encoder


def _plain_encoder(
    config: EncoderConfig, weightless: bool
) -> TinyEncoder | YamNet | WaveformEncoder | SpectrogramEncoder:
    if config.family == TINY:
        from mint.encoders.tiny import TinyEncoder

        return TinyEncoder()
    if config.family == "yamnet":
        from mint.encoders.yamnet import YamNet

        return YamNet.from_folder(Path(resolve(config.weights)))
    return _transformers_encoder(config, resolve(config.weights), weightless)


def build_language(
    config: LanguageConfig, device: torch.device | str = "cpu", weightless: bool = False
) -> LanguageModel:
    """The frozen language model, on its device.

    Args:
        config: its recipe.
        device: where it runs.
        weightless: one of transformers lies on the meta device: it has sizes and a tokenizer, and computes nothing.
    """
    from mint.language.causal import CausalLanguageModel
    from mint.language.seq2seq import Seq2SeqLanguageModel

    model: Any
    tokenizer: Any
    if config.family == TINY:
        from mint.language.tiny import tiny_language

        model, tokenizer = tiny_language()
        identity = "tiny: two random Llama blocks, seed 0"
    else:
        model, tokenizer, identity = _transformers_language(config, weightless)
    freeze(model)
    weightless = weightless and config.family != TINY
    if config.shard and not weightless:
        from mint.language.shard import shard_blocks
        from mint.model.gather import world_size

        shard_blocks(model, device, world_size())
    if not weightless:
        model.to(device)
    if config.family == "seq2seq":
        return Seq2SeqLanguageModel(model, tokenizer, identity=identity)
    return CausalLanguageModel(
        model, tokenizer, identity=identity, answer_end=config.answer_end, chat_template=config.chat_template
    )


def build_stage1(recipe: Recipe, audio_width: int, vocab_size: int) -> tuple[Stage1, LoadReport]:
    """Stage 1's model, its new weights drawn by the recipe's seed, and what the checkpoint gave to Bridge-Net."""
    torch.manual_seed(recipe.seed)
    bridge, report = build_bridge(recipe.bridge, audio_width, vocab_size)
    return _stage1(recipe, bridge), report


def build_stage2(
    recipe: Recipe, audio_width: int, vocab_size: int, language: LanguageModel
) -> tuple[Stage2, LoadReport | None]:
    """Stage 2's model; Bridge-Net from the stage-1 run that the recipe names, else from its checkpoint.

    Returns:
        The model, and what the checkpoint gave to Bridge-Net, where it starts from one.

    Raises:
        MintError: the stage-1 run is not finished, or its Bridge-Net has other sizes than the recipe's.
    """
    torch.manual_seed(recipe.seed)
    report = None
    if recipe.start is None:
        bridge, report = build_bridge(recipe.bridge, audio_width, vocab_size)
    else:
        bridge = BridgeNet(**bridge_sizes(recipe.bridge, audio_width, vocab_size))
        weights = load_weights(Path(recipe.start))
        inner = {name.removeprefix("bridge."): weight for name, weight in weights.items() if name.startswith("bridge.")}
        _load(bridge, inner, f"start: {recipe.start}")
    return _stage2(recipe, bridge, language), report


def find_stages(run: Path) -> dict[int, Path]:
    """The folders of a run's finished stages, by stage; all of them have the encoder of the first.

    Args:
        run: the folder of one stage, or one that holds `stage1` and `stage2`. Of the former the other stage is looked
            for beside it, and stage 1 also where stage 2 started.

    Raises:
        MintError: no such folder, or no finished stage in it.
    """
    if not run.is_dir():
        raise MintError(f"no such folder: {str(run)!r}; give the folder of a finished run")
    places = [run / "stage1", run / "stage2"]
    if (run / "recipe.yaml").is_file():
        if not is_finished(run):
            raise MintError(f"{run} is not finished (no model.safetensors); go on with `mint train ... --resume`")
        own = load_recipe(run / "recipe.yaml")
        places = [run, run.parent / f"stage{3 - own.stage}", *([Path(own.start)] if own.start else [])]
    found: dict[int, tuple[Path, Recipe]] = {}
    for place in places:
        if is_finished(place):
            recipe = load_recipe(place / "recipe.yaml")
            if all(recipe.encoder == other.encoder for _, other in found.values()):
                found.setdefault(recipe.stage, (place, recipe))
    if not found:
        raise MintError(f"{run} holds no finished run (no model.safetensors); train one with `mint quickstart`")
    return {stage: found[stage][0] for stage in sorted(found)}


def is_finished(run: Path) -> bool:
    """Whether a folder holds a finished run: the weights are written last."""
    return (run / "model.safetensors").is_file()


def load_stage1(run: Path) -> Stage1:
    """The model of a finished stage-1 run, without a look at the BERT that it started from.

    Raises:
        MintError: the run is not finished, or its files do not fit together.
    """
    return _load_run(run, _stage1)


def load_stage2(run: Path, language: LanguageModel) -> Stage2:
    """The model of a finished stage-2 run before its language model.

    Raises:
        MintError: as `load_stage1`, or it is another language model than the run was trained with.
    """
    check_frozen(run, "language", language.identity)
    return _load_run(run, lambda recipe, bridge: _stage2(recipe, bridge, language))


def load_weights(run: Path) -> dict[str, torch.Tensor]:
    """The trained weights of a finished run.

    Raises:
        MintError: the folder holds none, or the file is damaged.
    """
    path = run / "model.safetensors"
    if not is_finished(run):
        raise MintError(
            f"{run} holds no model.safetensors; give the folder of a finished run (DIR/stage1 or DIR/stage2), "
            "or finish this one with `mint train ... --resume`"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise MintError(f"{path} is damaged ({error}); train again, or copy it again from its origin") from None


def load_record(run: Path) -> dict[str, Any]:
    """What `run.json` of a finished run says.

    Raises:
        MintError: it is missing or broken.
    """
    path = run / "run.json"
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MintError(f"cannot read {path} ({error}); copy the whole folder of the run again") from None
    return record


def check_frozen(run: Path, part: str, identity: str) -> None:
    """Refuse another frozen model than a run was trained with.

    Args:
        run: its folder.
        part: `encoder` or `language`.
        identity: of the model that is here.

    Raises:
        MintError: it is another.
    """
    trained_with = load_record(run)["frozen"].get(part)
    if identity != trained_with:
        name = {"encoder": "encoder", "language": "language model"}[part]
        raise MintError(
            f"{run} was trained with the {name} {trained_with!r}, but here is {identity!r}; restore its weights, or "
            "train again"
        )


def load_tokenizer(run: Path) -> Any:
    """Bridge-Net's tokenizer of a finished run."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(run / "tokenizer")


def _transformers_encoder(config: EncoderConfig, source: str, weightless: bool) -> WaveformEncoder | SpectrogramEncoder:
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

    from mint.encoders import spectrogram, waveform

    adapter: Any = spectrogram if config.family == "spectrogram" else waveform
    sizes = load_pretrained(AutoConfig, source, config.revision)
    check_kind(sizes, adapter.MODELS, adapter.READER)
    if weightless:
        auto: Any = AutoModel
        model, identity = auto.from_config(sizes), f"{source} without its weights"
    else:
        model = load_weights_of(AutoModel, source, config.revision, adapter.UNUSED, dtype=torch.float32)
        identity = identify(source, config.revision)
    extractor = load_pretrained(AutoFeatureExtractor, source, config.revision)
    if config.family == "spectrogram":
        return spectrogram.SpectrogramEncoder(model, extractor, identity, config.layer)
    return waveform.WaveformEncoder(model, identity, config.layer, extractor.do_normalize, extractor.sampling_rate)


def _transformers_language(config: LanguageConfig, weightless: bool) -> tuple[Any, Any, str]:
    """Model, tokenizer and identity."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    from mint.language import causal, seq2seq

    original = source = resolve(config.weights)
    if list(Path(source).glob("*.gguf")):
        from mint.language.gguf import converted

        source = str(converted(Path(source)))
    kind: Any = AutoModelForSeq2SeqLM if config.family == "seq2seq" else AutoModelForCausalLM
    adapter: Any = seq2seq if config.family == "seq2seq" else causal
    sizes, dtype = load_pretrained(AutoConfig, source, config.revision), getattr(torch, config.dtype)
    check_kind(sizes, adapter.MODELS, adapter.READER)
    tokenizer = load_pretrained(AutoTokenizer, source, config.revision)
    if weightless:
        with torch.device("meta"):
            model = kind.from_config(sizes, dtype=dtype)
            if config.family == "seq2seq" and not getattr(sizes, "scale_decoder_outputs", False):
                # Of FlanT5 and mT5 the head is a matrix of its own; only T5's first checkpoints lack it.
                model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight))
        return model, tokenizer, f"{original} without its weights"
    model = load_weights_of(kind, source, config.revision, dtype=dtype)
    identity = f"{config.weights}@local" if config.weights.startswith("asset:") else identify(original, config.revision)
    return model, tokenizer, identity if config.dtype == "float32" else f"{identity} in {config.dtype}"


def _stage1(recipe: Recipe, bridge: BridgeNet) -> Stage1:
    from mint.model.stage1 import Stage1

    assert recipe.objectives is not None
    return Stage1(
        bridge=bridge,
        dec_token=bridge.word_embeddings.num_embeddings - 1,
        shared_width=recipe.objectives.shared_width,
        temperature=recipe.objectives.temperature,
        label_smoothing=recipe.objectives.label_smoothing,
        alc=recipe.objectives.alc,
        alm=recipe.objectives.alm,
        atg=recipe.objectives.atg,
    )


def _stage2(recipe: Recipe, bridge: BridgeNet, language: LanguageModel) -> Stage2:
    from mint.model.stage2 import Stage2

    stage = Stage2(
        bridge=bridge,
        language=language,
        instruction_aware=recipe.instruction_aware,
        whitened=recipe.aligned_start,
    )
    assert recipe.language is not None
    if recipe.language.lora is not None:
        from mint.language.lora import attach_lora

        model = language.model  # type: ignore[attr-defined]  # every adapter holds its model
        stage.add_module("lora", attach_lora(model, **dataclasses.asdict(recipe.language.lora)))
    return stage


def _load_run(run: Path, make: Callable[[Recipe, BridgeNet], Stage]) -> Stage:
    weights = load_weights(run)
    with torch.device("meta"):  # no time is spent on random weights: the run's own take their place
        model = make(load_recipe(run / "recipe.yaml"), BridgeNet(**load_record(run)["bridge"]))
    _load(model, weights, str(run), assign=True)
    return model.eval()


def _load(module: nn.Module, weights: dict[str, torch.Tensor], source: str, assign: bool = False) -> None:
    """Load weights that must be exactly the module's."""
    try:
        module.load_state_dict(weights, assign=assign)
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n\t", maxsplit=1)[-1].splitlines()[0].split()).rstrip(".")
        raise MintError(
            f"{source} does not fit the recipe: {reason}; give the bridge section of its own recipe"
        ) from None
