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
from mint.data.corpora.rendered.plan import ClipPlan
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
"""The order in which splits keep a rendering: of two that are the same to the byte, the first one stays."""


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
        The four manifests. A finished corpus is kept, an interrupted one is continued, one of other parameters is
        rendered anew.

    Raises:
        MintError: no SoundFont, no renderer, or a scale that is not positive or too large.
    """
    # Not `scale <= 0`, which lets NaN pass.
    if not scale > 0:
        raise MintError(f"scale is {scale}; give a number above 0, such as 1 or 0.05")
    output.mkdir(parents=True, exist_ok=True)
    clear_abandoned(output)
    # The pool starts its processes when it is first used. An interruption is this process's to handle, not theirs.
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    ) as pool:
        # In chunks, so that messages between the processes cost little beside the clips themselves.
        run = functools.partial(pool.map, chunksize=8) if workers > 1 else map
        return [_render_corpus(name, output, soundfont.absolute(), seed, scale, run, progress) for name in CORPORA]


def _render_corpus(
    name: str, output: Path, font: Path, seed: int, scale: float, run: Callable[..., Any], progress: bool
) -> Path:
    """Render what is missing of one corpus, and return its manifest; `run` is a form of `map`."""
    plans: list[ClipPlan] = CORPORA[name].plan(seed, scale)
    folder, manifest = output / name, output / f"{name}.jsonl"
    _clear_if_other(folder, manifest, output / f".{name}.stamp.json", _stamp(plans, font))

    missing = [plan for plan in plans if not _file(folder, plan).exists()]
    written = run(functools.partial(_write, folder=folder, font=font), missing)
    count = 0
    for _ in tqdm(written, name, len(missing), unit="clip", disable=not (progress and missing)):
        count += 1
    # A manifest that is there is of these plans and these files, unless one of them was rendered again.
    if count or not manifest.exists():
        write_manifest(manifest, _examples(name, plans, folder))
    return manifest


def _stamp(plans: Sequence[ClipPlan], font: Path) -> str:
    """Return what the files of a corpus depend on, as JSON."""
    # All of a plan counts, captions too: other wording is another corpus.
    records = [asdict(plan) for plan in plans]
    return json.dumps(
        {
            "soundfont": hashlib.sha256(read_soundfont(font)).hexdigest(),
            "renderer": renderer_version(),
            "gain": GAIN,
            "plans": hashlib.sha256(json.dumps(records).encode()).hexdigest(),
        }
    )


def _clear_if_other(folder: Path, manifest: Path, stamp_file: Path, stamp: str) -> None:
    """Remove what was made from something else, the stamp last, and leave a folder to render into.

    Raises:
        MintError: files are there that were not rendered here.
    """
    is_stamped = stamp_file.exists()
    # As bytes, so that a stamp that is damaged is another one.
    if not is_stamped or stamp_file.read_bytes() != stamp.encode():
        is_used = manifest.exists() or (folder.exists() and any(folder.iterdir()))
        if is_used and not is_stamped:
            raise MintError(f"{folder.parent} holds a {folder.name!r} that MINT has not rendered; give another folder")

        manifest.unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        write_whole(stamp_file, stamp)

    folder.mkdir(exist_ok=True)
    clear_abandoned(folder)


def _write(plan: ClipPlan, folder: Path, font: Path) -> None:
    """Render one clip and write it whole or not at all."""
    samples = render(font, plan.notes, plan.seconds)
    # A clip that is there is taken for a whole one by the next run.
    with writing(_file(folder, plan)) as file:
        soundfile.write(file, samples, RATE, format="FLAC", subtype="PCM_16")


def _file(folder: Path, plan: ClipPlan) -> Path:
    """Return the path of a clip."""
    return folder / f"{plan.id}.flac"


def _examples(name: str, plans: Sequence[ClipPlan], folder: Path) -> Iterator[Example]:
    """Yield the manifest's lines, without a second copy of the same bytes (two plans may sound alike)."""
    # Held-out splits come first, so that of two equal clips the one that is trained on goes.
    seen: set[str] = set()
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
