"""The folder of a run: which stages it holds, its weights, its record and its tokenizer.

This is the only place that looks for finished stages, so that training, evaluation and use agree on what a run is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mint.config import Recipe, load_recipe
from mint.types import MintError

if TYPE_CHECKING:
    pass


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
