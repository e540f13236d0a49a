"""Stages as models: new ones from a recipe, and trained ones from finished runs.

Imports are late, so that each stage loads alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import nn

from mint.builders.bridge import bridge_sizes, build_bridge
from mint.builders.language import build_language
from mint.config import Recipe, load_recipe
from mint.data.features.reference import ReferenceClips
from mint.machine import default_device
from mint.model.bridge_net import BridgeNet
from mint.model.convert import LoadReport
from mint.run_folder import check_frozen, load_record, load_run_recipe, load_tokenizer, load_weights
from mint.text_files import one_line
from mint.types import LanguageModel, MintError

if TYPE_CHECKING:
    from mint.model.stage1 import Stage1
    from mint.model.stage2 import Stage2

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class TrainedStage(Generic[Model]):
    """A trained stage with what its input needs, which may differ between the stages of one run."""

    model: Model
    tokenizer: Any
    """Bridge-Net's tokenizer."""
    max_tokens: int
    """Bridge-Net's tokens of the longest caption or instruction that it reads."""
    max_seconds: float
    """Seconds of the longest window of audio."""
    reference: ReferenceClips | None = None
    """Clips of the training of stage 2, where the run kept some."""
    biases: dict[tuple[str, ...], torch.Tensor] = dataclasses.field(default_factory=dict, repr=False)
    """What `mint.predict.label_bias` has found, by prompt and candidates."""


@dataclass(frozen=True)
class Trained:
    """The stages of a run that are there."""

    stage1: TrainedStage[Stage1] | None
    stage2: TrainedStage[Stage2] | None


def load_trained(folders: Mapping[int, Path], device: torch.device | str | None = None) -> Trained:
    """Load the stages of a run.

    Args:
        folders: the folder of each stage, as `mint.run_folder.find_stages` gives them.
        device: where they run; None: the accelerator, if there is one.

    Raises:
        MintError: as `load_stage1` and `load_stage2`.
    """
    device = default_device() if device is None else device
    stage1 = stage2 = None
    if 1 in folders:
        stage1 = with_its_input(folders[1], load_stage1(folders[1]).to(device))
    if 2 in folders:
        config = load_run_recipe(folders[2]).language
        assert config is not None
        # The language model is no child of the stage, and so is put on the device by itself.
        stage2 = with_its_input(folders[2], load_stage2(folders[2], build_language(config, device)).to(device))
    return Trained(stage1, stage2)


def build_stage1(recipe: Recipe, audio_width: int, vocab_size: int) -> tuple[Stage1, LoadReport]:
    """Build stage 1's model; its new weights are drawn by the recipe's seed.

    Args:
        recipe: the recipe of stage 1.
        audio_width: the width of the encoder's features.
        vocab_size: the number of tokens of Bridge-Net's tokenizer.

    Returns:
        The model, and what the checkpoint gave to Bridge-Net.
    """
    # The seed is set before the first weight is drawn, and nothing else may draw in between.
    torch.manual_seed(recipe.seed)
    bridge, report = build_bridge(recipe.bridge, audio_width, vocab_size)
    return _stage1(recipe, bridge), report


def build_stage2(
    recipe: Recipe, audio_width: int, vocab_size: int, language: LanguageModel
) -> tuple[Stage2, LoadReport | None]:
    """Build stage 2's model, with Bridge-Net from the stage-1 run that the recipe names, or else from its checkpoint.

    Args:
        recipe: the recipe of stage 2.
        audio_width: the width of the encoder's features.
        vocab_size: the number of tokens of Bridge-Net's tokenizer.
        language: the frozen language model.

    Returns:
        The model, and what the checkpoint gave to Bridge-Net; None if it starts from a stage-1 run.

    Raises:
        MintError: the stage-1 run is not finished, or its Bridge-Net has other sizes than the recipe's.
    """
    torch.manual_seed(recipe.seed)
    if recipe.start is None:
        bridge, report = build_bridge(recipe.bridge, audio_width, vocab_size)
        return _stage2(recipe, bridge, language), report

    # Of the weights of stage 1, its objectives' own are left behind.
    bridge = BridgeNet(**bridge_sizes(recipe.bridge, audio_width, vocab_size))
    weights = {}
    for name, weight in load_weights(Path(recipe.start)).items():
        if name.startswith("bridge."):
            weights[name.removeprefix("bridge.")] = weight
    _load(bridge, weights, f"start: {recipe.start}")
    return _stage2(recipe, bridge, language), None


def load_stage1(run: Path) -> Stage1:
    """Load the model of a finished stage-1 run; the BERT that it started from is not needed.

    Raises:
        MintError: the run is not finished, or its files do not fit together.
    """
    return _load_run(run, _stage1)


def load_stage2(run: Path, language: LanguageModel) -> Stage2:
    """Load the model of a finished stage-2 run.

    Args:
        run: the folder of the run.
        language: the frozen language model.

    Raises:
        MintError: as `load_stage1`, or the run was trained with another language model.
    """
    check_frozen(run, "language", language.identity)
    return _load_run(run, lambda recipe, bridge: _stage2(recipe, bridge, language))


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
        soft_prompts=recipe.soft_prompts,
    )
    assert recipe.language is not None
    if recipe.language.lora is not None:
        from mint.language.lora import attach_lora

        # The adapters of language models hold the model of transformers that they adapt.
        model = language.model  # type: ignore[attr-defined]
        stage.add_module("lora", attach_lora(model, **dataclasses.asdict(recipe.language.lora)))
    return stage


def _load_run(run: Path, make: Callable[[Recipe, BridgeNet], Model]) -> Model:
    weights = load_weights(run)
    recipe, sizes = load_recipe(run / "recipe.yaml"), load_record(run)["bridge"]

    # No time is spent on random weights: those of the run take their place.
    with torch.device("meta"):
        model = make(recipe, BridgeNet(**sizes))
    _load(model, weights, str(run), assign=True)
    return model.eval()


def with_its_input(run: Path, model: Model) -> TrainedStage[Model]:
    """Return a loaded model with what its input needs, which the folder of its run says."""
    recipe = load_recipe(run / "recipe.yaml")
    texts, seconds = recipe.bridge.max_text_tokens, recipe.data.max_seconds
    return TrainedStage(model, load_tokenizer(run), texts, seconds, ReferenceClips.load(run))


def _load(module: nn.Module, weights: dict[str, torch.Tensor], source: str, assign: bool = False) -> None:
    """Load weights that must be exactly the module's."""
    try:
        module.load_state_dict(weights, assign=assign)
    except RuntimeError as error:
        # torch lists every tensor that does not fit, one a line; the first one says enough.
        reason = one_line(str(error).split("\n\t", maxsplit=1)[-1].splitlines()[0]).rstrip(".")
        raise MintError(
            f"{source} does not fit the recipe: {reason}; give the bridge section of its own recipe"
        ) from None
