"""The corpora of the quickstart, rendered from a General MIDI SoundFont: notes, ensembles, chords and percussion.

Each is a folder of 16 kHz mono FLAC files with a manifest beside it. Everything follows from the seed. The manifest is
written last, so that its presence means that the corpus is complete; a stamp beside it tells what it was made from.
"""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import soundfile
from tqdm import tqdm

from mint.data.corpora.rendered import chords, ensembles, notes, percussion
from mint.data.corpora.rendered.plan import Plan
from mint.data.corpora.rendered.soundfont import GAIN, RATE, read_soundfont, render, renderer_version
from mint.data.manifests.manifest import write_manifest
from mint.data.manifests.prompts import join_labels
from mint.files import clear_abandoned, sha256, write_whole, writing
from mint.types import Example, MintError

CORPORA: dict[str, ModuleType] = {
    "notes": notes,
    "ensembles": ensembles,
    "chords": chords,
    "percussion": percussion,
}
"""Name of corpus and task -> the module with its PROMPT, VOCABULARY and plan(seed, scale)."""

SPLIT_ORDER = ("test", "unseen", "validation", "train")
"""Of two renderings that are the same to the byte, the one of the earlier split stays."""


def prepare_quickstart(
    output: Path, soundfont: Path, seed: int = 0, scale: float = 1.0, workers: int = 2, progress: bool = True
) -> list[Path]:
    """Render the corpora that are not there yet.

    Args:
        output: folder of the manifests; created.
        soundfont: an .sf2 file.
        seed: of everything; the same seed gives the same bytes.
        scale: factor on the number of clips; every class keeps at least one in each split.
        workers: processes; 1 renders in this one.
        progress: show a bar for each corpus.

    Returns:
        The four manifests. A finished corpus is kept, an interrupted one is gone on with, one of other parameters is
        rendered anew.

    Raises:
        MintError: no SoundFont, no renderer, or a scale that is not positive or too large.
    """
    if not scale > 0:
        raise MintError(f"scale is {scale}; give a number above 0, such as 1 or 0.05")
    output.mkdir(parents=True, exist_ok=True)
    clear_abandoned(output)
    with ProcessPoolExecutor(  # starts its processes when it is first used; an interruption is this process's to handle
        workers, multiprocessing.get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    ) as pool:
        run = functools.partial(pool.map, chunksize=8) if workers > 1 else map
        return [_prepare(name, output, soundfont.absolute(), seed, scale, run, progress) for name in CORPORA]


def _prepare(
    name: str, output: Path, font: Path, seed: int, scale: float, run: Callable[..., Any], progress: bool
) -> Path:
    """One corpus; `run` is a form of `map`."""
    plans: list[Plan] = CORPORA[name].plan(seed, scale)
    folder, manifest = output / name, output / f"{name}.jsonl"
    _clear_if_other(folder, manifest, output / f".{name}.stamp.json", _stamp(plans, font))
    missing = [plan for plan in plans if not _file(folder, plan).exists()]
    written = run(functools.partial(_write, folder=folder, font=font), missing)
    done = sum(1 for _ in tqdm(written, name, len(missing), unit="clip", disable=not (progress and missing)))
    if done or not manifest.exists():
        write_manifest(manifest, _examples(name, plans, folder))
    return manifest


def _stamp(plans: Sequence[Plan], font: Path) -> str:
    """What the files depend on, as JSON."""
    return json.dumps(
        {
            "soundfont": hashlib.sha256(read_soundfont(font)).hexdigest(),
            "renderer": renderer_version(),
            "gain": GAIN,
            "plans": hashlib.sha256(json.dumps([asdict(plan) for plan in plans]).encode()).hexdigest(),
        }
    )


def _clear_if_other(folder: Path, manifest: Path, stamp_file: Path, stamp: str) -> None:
    """Remove what was made from something else, the stamp last, and leave a folder to render into."""
    if not (stamp_file.exists() and stamp_file.read_text() == stamp):
        if not stamp_file.exists() and (manifest.exists() or (folder.exists() and any(folder.iterdir()))):
            raise MintError(f"{folder.parent} holds a {folder.name!r} that was not rendered here; give another folder")
        manifest.unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        write_whole(stamp_file, stamp)
    folder.mkdir(exist_ok=True)
    clear_abandoned(folder)


def _write(plan: Plan, folder: Path, font: Path) -> None:
    """Render one clip and write it in one step."""
    samples = render(font, plan.notes, plan.seconds)
    with writing(_file(folder, plan)) as file:
        soundfile.write(file, samples, RATE, format="FLAC", subtype="PCM_16")


def _file(folder: Path, plan: Plan) -> Path:
    return folder / f"{plan.id}.flac"


def _examples(name: str, plans: Sequence[Plan], folder: Path) -> Iterator[Example]:
    """The manifest's lines, without a second copy of the same bytes (two plans may sound alike)."""
    seen = set()
    for plan in sorted(plans, key=lambda plan: SPLIT_ORDER.index(plan.split)):
        path = _file(folder, plan)
        content = sha256(path)
        if content in seen:
            continue
        seen.add(content)
        yield Example(
            id=plan.id,
            audio=path,
            task=name,
            split=plan.split,
            corpus=name,
            prompt=CORPORA[name].PROMPT,
            answer=join_labels(plan.labels, CORPORA[name].VOCABULARY),
            labels=plan.labels,
            captions=plan.captions,
            metadata=plan.metadata,
        )
