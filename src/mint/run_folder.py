"""The folder of a run: which stages it holds, its weights, its record, its tokenizer, and the paths in its recipe.

This is the only place that looks for finished stages, so that training, evaluation and use agree on what a run is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mint.config import EncoderConfig, load_recipe
from mint.text_files import read_json
from mint.types import MintError

STARTED_IN = "started_in"
"""Key of `run.json`: the working directory of the training, as a path relative to the run's folder."""


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
            raise MintError(f"{run} is not finished (no model.safetensors); go on with `mint train ... --resume`")
        recipe = load_recipe(run / "recipe.yaml")
        candidates = [run, *_start_of(run), run.parent / f"stage{3 - recipe.stage}"]
    else:
        candidates = [run / "stage1", run / "stage2", *_start_of(run / "stage2")]

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


def working_directory(run: Path) -> str:
    """Return what `run.json` says under `started_in`: relative, so that it holds when both folders are moved."""
    try:
        return os.path.relpath(Path.cwd(), run.resolve())
    except ValueError:  # they are on two drives of Windows
        return str(Path.cwd())


def locate(run: Path, path: str | Path) -> Path:
    """Return where a path that the recipe of a run names is, from whichever folder MINT is called.

    A relative path is meant from the working directory in which the run was trained. The path may not exist: the run
    may have been copied without what it names.
    """
    if Path(path).is_absolute() or not (run / "run.json").is_file():
        return Path(path)
    started_in = load_record(run).get(STARTED_IN)
    return Path(path) if started_in is None else Path(os.path.normpath(run.resolve() / started_in)) / path


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
    if not isinstance(record, dict):
        raise MintError(f"cannot read {path} (it holds no object); copy the whole folder of the run again")
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
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(run / "tokenizer")


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
