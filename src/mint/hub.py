"""Finished runs for others: a folder, or a repository of the Hugging Face hub, with all that their use needs.

Only the trained weights are shared; the frozen models come from where the recipe says.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import HfApi, ModelCardData, snapshot_download

from mint.config import Recipe, load_recipe
from mint.data.features.reference import REFERENCE
from mint.files import write_json, write_whole
from mint.run_folder import load_record
from mint.text_files import one_line
from mint.types import MintError

FILES = ("recipe.yaml", "model.safetensors")
"""The files of a stage that are copied as they are."""
CARD = """---
{metadata}
---

# {name}

An audio-language model made with MINT: Bridge-Net, trained between a frozen audio encoder and a frozen language model.
This repository holds the trained weights alone. The frozen models are fetched from where they come from, and have
licences of their own, as the training data have.

| stage | recipe | audio encoder | Bridge-Net started from | language model |
|---|---|---|---|---|
{rows}

```python
from mint import Mint

mint = Mint.from_pretrained("{name}")
{lines}
```
"""
LINES = {
    1: 'mint.search("a loud drum", ["a.wav", "b.wav"])\nmint.embed_audio("rain.wav")',
    2: 'mint.caption("rain.wav")\nmint.ask("song.mp3", "The genre of this music is")',
}
"""Examples for the card of what each stage can do."""


def save(folders: Mapping[int, Path], target: Path, name: str | None = None) -> Path:
    """Copy finished stages into a folder, with a model card, and return the folder.

    Args:
        folders: the folder of each finished stage, by stage.
        target: the new folder.
        name: the model's name in the card; None: that of the folder.

    Raises:
        MintError: the folder holds stages or a card already.
    """
    for taken in (target / "stage1", target / "stage2", target / "README.md"):
        if taken.exists():
            raise MintError(f"{taken} is there already; choose another folder, or remove it first")

    for stage, folder in folders.items():
        copy = target / f"stage{stage}"
        # Only what a finished stage is used with: checkpoints and logs stay where the run was trained.
        shutil.copytree(folder / "tokenizer", copy / "tokenizer")
        for file in FILES:
            shutil.copy2(folder / file, copy / file)
        if (folder / REFERENCE).is_file():
            shutil.copy2(folder / REFERENCE, copy / REFERENCE)
        record = load_record(folder)
        record.pop("paths", None)  # relative to where the run was trained
        write_json(copy / "run.json", record)

    recipes = {stage: load_recipe(folder / "recipe.yaml") for stage, folder in folders.items()}
    write_whole(target / "README.md", model_card(recipes, name or target.resolve().name))
    return target


def push(folders: Mapping[int, Path], repo: str, private: bool = False) -> str:
    """Upload finished stages to `user/name` on the hub, and return the address.

    Raises:
        MintError: the hub refuses, or cannot be reached.
    """
    api = HfApi()
    with tempfile.TemporaryDirectory() as folder:
        save(folders, Path(folder), repo)
        try:
            address = api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message="A model made with MINT")
        except (OSError, ValueError) as error:
            reason = one_line(str(error))
            raise MintError(f"cannot upload to {repo!r} ({reason}); log in with `hf auth login`") from None
    return str(address)


def download(name: str) -> Path:
    """Return the folder in the hub's cache that holds a model, which is fetched if it is not there.

    Raises:
        MintError: it is no name of a model, or the model cannot be fetched.
    """
    missing = f"no such folder: {name!r}; give the folder of a finished run, or a name on the hub (user/model)"
    # A mistyped path must not become a question to the hub: `./runs/a` and `runs/a/stage1` are paths.
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise MintError(missing)

    try:
        return Path(snapshot_download(name))
    except (OSError, ValueError) as error:
        reason = one_line(str(error))
        raise MintError(f"{missing}, which could not be fetched ({reason})") from None


def model_card(recipes: Mapping[int, Recipe], name: str) -> str:
    """Return the text of README.md, with the metadata that the hub reads.

    Args:
        recipes: the recipe of each stage, by stage.
        name: the model's name.
    """
    metadata = ModelCardData(
        library_name="mint-audio",
        pipeline_tag="audio-text-to-text" if 2 in recipes else "feature-extraction",
        tags=["audio", "music", "audio-classification"] + (["audio-captioning"] if 2 in recipes else []),
    )
    rows, lines = [], []
    for stage, recipe in recipes.items():
        language = recipe.language.weights if recipe.language else ""
        encoder = f"{recipe.encoder.family}, {recipe.encoder.weights}"
        rows.append(f"| {stage} | {recipe.name} | {encoder} | {recipe.bridge.weights} | {language} |")
        lines.append(LINES[stage])
    return CARD.format(metadata=metadata.to_yaml(), name=name, rows="\n".join(rows), lines="\n".join(lines))
