"""The folder of a run: which stages it holds, its weights, its record, its tokenizer, and the paths in its recipe.

This is the only place that looks for finished stages, so that training, evaluation and use agree on what a run is.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mint.assets.pretrained import load_pretrained
from mint.config import EncoderConfig, Recipe, load_recipe
from mint.text_files import read_json
from mint.types import MintError

PATHS = "paths"
"""Key of `run.json`: each file and folder that the recipe names, as it stands there, with its path relative to the
folder of the run. The recipe's own paths are relative to the working directory of the training, or absolute."""


def find_stages(run: Path) -> dict[int, Path]:
    """Return the folders of a run's finished stages by their numbers; all of them have the same encoder.

    Args:
        run: the folder of one stage, or a folder that holds `stage1` and `stage2`. The other stage of the former is
            the stage 1 that it started from, or the folder `stage1` or `stage2` beside it. A folder that holds
            `stage2` alone is completed by the stage 1 that this one started from.

    Raises:
        MintError: there is no such folder, or no finished stage in it.
    """
    _refuse_no_folder(run)
    if (run / "recipe.yaml").is_file():
        if not is_finished(run):
            raise MintError(f"{run} is not finished (no model.safetensors); continue it with `mint train ... --resume`")
        recipe = load_recipe(run / "recipe.yaml")
        # The other of the stages 1 and 2.
        candidates = [run, *_start_of(run), run.parent / f"stage{3 - recipe.stage}"]
    else:
        candidates = [run / "stage1", run / "stage2", *_start_of(run / "stage2")]

    # The first folder of each stage counts, and of two encoders that of the folder that was given.
    stages: dict[int, Path] = {}
    encoders: list[EncoderConfig] = []
    for folder in candidates:
        if not _is_stage(folder):
            continue
        recipe = load_recipe(folder / "recipe.yaml")
        if recipe.stage not in stages and encoders in ([], [recipe.encoder]):
            stages[recipe.stage] = folder
            encoders = [recipe.encoder]

    if not stages:
        raise MintError(f"{run} holds no finished run (no model.safetensors); train one with `mint quickstart`")
    return dict(sorted(stages.items()))


def is_finished(run: Path) -> bool:
    """Return whether a folder holds a finished run: its weights are written last."""
    return (run / "model.safetensors").is_file()


def relative_paths(recipe: Recipe, run: Path) -> dict[str, str]:
    """Return what `run.json` says under `paths`; names of assets and of the hub are not among them."""
    relative: dict[str, str] = {}

    def note(path: str) -> str:
        if Path(path).exists():
            with suppress(ValueError):  # on another drive of Windows: no path leads there from the run
                relative[path] = Path(os.path.relpath(Path(path).resolve(), run.resolve())).as_posix()
        return path

    with_paths(recipe, note)
    return relative


def locate(run: Path, path: str | Path) -> Path:
    """Return where a path that the recipe of a run names is, from whichever folder MINT is called.

    A relative path, and an absolute one that is not there any more, is looked for where it stood relative to the run,
    so that both may have been moved together. It may not exist: the run may have been copied without what it names.
    """
    # A recipe that was never trained has no record of where its paths were.
    if (Path(path).is_absolute() and Path(path).exists()) or not (run / "run.json").is_file():
        return Path(path)
    relative = load_record(run).get(PATHS, {}).get(str(path))
    if relative is None:
        return Path(path)

    location = Path(os.path.normpath(run.resolve() / relative))
    if Path(path).exists() and location.exists() and location.samefile(path):
        return Path(path)  # the shorter one
    return location


def load_run_recipe(run: Path) -> Recipe:
    """Return the recipe of a run, with its paths as `locate` finds them.

    Raises:
        MintError: there is no recipe, or it or the run's record cannot be read.
    """
    return with_paths(load_recipe(run / "recipe.yaml"), lambda path: str(locate(run, path)))


def with_paths(recipe: Recipe, change: Callable[[str], str]) -> Recipe:
    """Return a recipe with `change` applied to whatever may be a path: manifests, blacklists, weights and the start."""

    def changed(section: Any, *keys: str) -> Any:
        values: dict[str, Any] = {}
        for key in keys:
            value = getattr(section, key)
            if isinstance(value, str):
                values[key] = change(value)
            # Manifests and blacklists are several.
            elif value is not None:
                values[key] = tuple(change(path) for path in value)
        return dataclasses.replace(section, **values)

    sections = {
        "encoder": changed(recipe.encoder, "weights"),
        "bridge": changed(recipe.bridge, "weights", "tokenizer"),
        "language": None if recipe.language is None else changed(recipe.language, "weights"),
        "data": changed(recipe.data, "manifests", "blacklists"),
    }
    whole: Recipe = changed(dataclasses.replace(recipe, **sections), "start")
    return whole


def load_weights(run: Path) -> dict[str, torch.Tensor]:
    """Return the trained weights of a finished run.

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
    """Return what `run.json` of a run says.

    Raises:
        MintError: it is missing or broken.
    """
    path = run / "run.json"
    try:
        record: dict[str, Any] = read_json(path)
    except (OSError, MintError) as error:
        raise MintError(f"cannot read {path} ({error}); copy the whole folder of the run again") from None
    if not isinstance(record, dict) or not isinstance(record.get("frozen"), dict):
        raise MintError(f"cannot read {path} (it is no record of a run); copy the whole folder of the run again")
    return record


def check_frozen(run: Path, part: str, identity: str) -> None:
    """Refuse another frozen model than a run was trained with.

    Args:
        run: the run's folder.
        part: `encoder` or `language`.
        identity: the identity of the model that is here.

    Raises:
        MintError: the model is another one.
    """
    trained_with = load_record(run)["frozen"].get(part)
    if identity != trained_with:
        name = {"encoder": "encoder", "language": "language model"}[part]
        raise MintError(
            f"{run} was trained with the {name} {trained_with!r}, but here is {identity!r}; restore its weights, or "
            "train again"
        )


def load_tokenizer(run: Path) -> Any:
    """Return Bridge-Net's tokenizer of a finished run."""
    return load_pretrained("AutoTokenizer", str(run / "tokenizer"), None)


def _refuse_no_folder(run: Path) -> None:
    if run.is_file():
        raise MintError(f"{str(run)!r} is a file; give the folder of a finished run, such as {str(run.parent)!r}")
    if not run.is_dir():
        raise MintError(f"no such folder: {str(run)!r}; give the folder of a finished run")


def _is_stage(folder: Path) -> bool:
    return is_finished(folder) and (folder / "recipe.yaml").is_file()


def _start_of(stage2: Path) -> list[Path]:
    """Return the folder of the stage 1 from which a finished stage 2 started, if it names one."""
    if not _is_stage(stage2):
        return []
    start = load_recipe(stage2 / "recipe.yaml").start
    return [] if start is None else [locate(stage2, start)]
