"""An index made by a loaded run: `Mint.index` and `Mint.open_index`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mint.files import sha256
from mint.index import Embedder, Index, Origin, Updated, is_index, list_sources, update_index
from mint.index.update import Progress
from mint.inference.loading import MODELS, LoadedRun
from mint.types import MintError


def make_index(
    run: LoadedRun,
    sources: str | Path | Iterable[str | Path],
    output: str | Path,
    every: float | None,
    progress: Progress,
) -> Updated:
    """Make an index or bring it up to date; arguments and errors as `Mint.index`."""
    stage = run.load_stage1()
    paths = [sources] if isinstance(sources, str | Path) else list(sources)
    folder = str(run.folders[1].absolute())

    if every is not None and not 0 < every <= stage.max_seconds:
        raise MintError(
            f"every is {every} s; give more than 0 and at most {stage.max_seconds:g}, the run's data.max_seconds"
        )

    if is_index(output):
        index = open_index(run, output)
        window_seconds = index.contents.window_seconds
        if every not in (None, window_seconds):
            raise MintError(f"{output} has windows of {window_seconds:g} s, not of {every:g} s; choose another folder")
    else:
        if not paths:
            raise MintError(f"{output} holds no index yet; give a folder, a manifest or audio files to make one of")
        list_sources(paths)  # what is missing is told before a folder is made
        index = Index.create(output, origin_of(run), folder, stage.max_seconds if every is None else every)

    return update_index(index, Embedder(run.encoder, stage, MODELS), folder, paths, progress)


def open_index(run: LoadedRun, folder: str | Path) -> Index:
    """Open an index that a run made; errors as `Mint.open_index`."""
    index = Index.open(folder)
    run.load_stage1()
    index.check_origin(origin_of(run), str(run.folders[1]))
    return index


def origin_of(run: LoadedRun) -> Origin:
    """Return what an index says of the model that made it."""
    return Origin(sha256(run.folders[1] / "model.safetensors"), run.encoder.identity)
