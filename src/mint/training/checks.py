"""What is refused before a run begins, or goes on: arguments, starts, models and recipes that do not fit."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mint.assets.pretrained import pin
from mint.builders.bridge import TINY, bridge_sizes
from mint.config import Recipe, load_recipe, recipe_to_dict
from mint.data.features.prepare import launched_rank
from mint.run_folder import check_frozen, is_finished, load_run_recipe, with_paths
from mint.training.arguments import training_arguments
from mint.training.checkpoints import checkpoints
from mint.types import AudioEncoder, MintError


def has_begun(output: Path) -> bool:
    """Return whether a folder holds a run, finished or interrupted."""
    return is_finished(output) or bool(checkpoints(output))


def check(recipe: Recipe, output: Path) -> None:
    """Refuse now what would otherwise be refused once the features are there, perhaps hours later.

    Raises:
        MintError: an argument of training that cannot be used, or a start that is no finished stage 1 of this encoder.
    """
    # Built and thrown away: the Trainer's own checks are among these.
    training_arguments(recipe, output)
    if recipe.start is None:
        return

    start = Path(recipe.start)
    if not is_finished(start):
        raise MintError(f"start: {start} holds no finished run (no model.safetensors); train its stage 1 first")

    before = load_recipe(start / "recipe.yaml")
    if before.stage != 1:
        raise MintError(f"start: {start} is a run of stage {before.stage}; give the folder of its stage 1")
    for key in ("family", "weights", "layer"):
        wanted, trained = getattr(recipe.encoder, key), getattr(before.encoder, key)
        # A folder of weights may have moved: `check_models` compares what is in it.
        is_moved = key == "weights" and Path(wanted).is_dir()
        if wanted != trained and not is_moved:
            raise MintError(
                f"start: {start} was trained with encoder.{key} {trained!r}, and this recipe has {wanted!r}; "
                "give both the same encoder"
            )


def check_models(recipe: Recipe, encoder: AudioEncoder) -> None:
    """Refuse what the models' own configurations show to be impossible.

    Raises:
        MintError: Bridge-Net cannot have the recipe's sizes, or its start has learnt from another encoder.
    """
    bridge_sizes(recipe.bridge, encoder.width, vocab_size=0)
    if recipe.start is not None:
        check_frozen(Path(recipe.start), "encoder", encoder.identity)


def pinned(recipe: Recipe, output: Path) -> Recipe:
    """Return the recipe with a commit for each name on the hub that has no revision.

    The commit is the one with which the run in the folder began, else that of the stage 1 that the recipe starts from,
    else that of the main branch today.
    """
    folders = [output, *([Path(recipe.start)] if recipe.start is not None else [])]
    earlier: list[Recipe] = []
    for folder in folders:
        with suppress(MintError):  # there is none yet, or it is damaged: `refuse_other_recipe` says so
            earlier.append(load_recipe(folder / "recipe.yaml"))

    sections: dict[str, Any] = {}
    for name in ("encoder", "bridge", "language"):
        section = getattr(recipe, name)
        if section is None or section.revision is not None:
            continue
        if TINY in (section.weights, getattr(section, "family", None)):
            continue
        sections[name] = replace(section, revision=_earlier_revision(name, section.weights, earlier))
    return replace(recipe, **sections)


def refuse_other_recipe(recipe: Recipe, output: Path) -> None:
    """Refuse a recipe other than the one that the run in a folder began with.

    A recipe that cannot be read any more is passed over where the run is not finished: its checkpoints are worth more
    than the proof that they are of this recipe.

    Raises:
        MintError: the recipes differ; it names the first key with both values.
    """
    path = output / "recipe.yaml"
    if not path.is_file():
        return
    try:
        before = load_recipe(path)
    except MintError as error:
        if is_finished(output):
            raise
        if launched_rank()[0] == 0:
            print(f"{error}; its checkpoints are assumed to belong to the given recipe", file=sys.stderr)
        return

    located = before
    with suppress(MintError):  # the record of its paths is missing or broken
        located = load_run_recipe(output)
    if with_paths(located, _resolved) == with_paths(recipe, _resolved):
        return  # at most, the same paths are written in another way, or from another folder

    begun, wanted = _dotted(recipe_to_dict(before)), _dotted(recipe_to_dict(recipe))
    keys = [*wanted, *begun]
    keys.sort(key=lambda key: (key != "stage", key == "name"))  # the stage says most, the name least
    for key in keys:
        if begun.get(key) != wanted.get(key):
            raise MintError(
                f"{output} holds a run with {key} {begun.get(key)!r}, not {wanted.get(key)!r}; "
                "choose another folder, or give the recipe that it started with"
            )


def _earlier_revision(name: str, weights: str, earlier: list[Recipe]) -> str | None:
    """Return the revision that an earlier recipe has for the same weights, else the commit of the main branch."""
    for recipe in earlier:
        section = getattr(recipe, name)
        if section is not None and section.weights == weights:
            revision: str | None = section.revision
            return revision
    return pin(weights)


def _resolved(path: str) -> str:
    """Return the one path of a file or folder that exists, and any other name as it is."""
    return str(Path(path).resolve()) if Path(path).exists() else path


def _dotted(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by their dotted keys."""
    dotted: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            dotted |= _dotted(value, f"{prefix}{key}.")
        else:
            dotted[f"{prefix}{key}"] = value
    return dotted
