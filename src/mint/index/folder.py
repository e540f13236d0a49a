"""The class `Index`: the embeddings of many clips in a folder, `index.json` and the segments that it lists."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mint.files import owning
from mint.index.contents import Contents, Origin, is_index, open_contents, write_contents
from mint.index.ranking import Combination, Hit, rank
from mint.index.segment import Entry
from mint.index.writer import IndexWriter
from mint.types import MintError


class Index:
    """The embeddings of many clips on disk, and exact search in them.

    Vectors are mapped into memory, so that opening an index takes no time and a search holds some bytes a window. An
    object shows the index as it was when it was opened or refreshed, whatever other processes do with it since; several
    threads may search at once.

    Args:
        folder: the folder of the index.

    Raises:
        MintError: there is no index, or it is damaged or of a later version.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.contents, self.segments = open_contents(self.folder)

    @classmethod
    def open(cls, folder: str | Path) -> Index:
        """Open an index; errors as the class."""
        return cls(folder)

    @classmethod
    def create(cls, folder: str | Path, origin: Origin, run: str, window_seconds: float) -> Index:
        """Make an empty index in a folder, which is created.

        Args:
            folder: the folder; it holds nothing yet, or nothing that matters to an index.
            origin: what its vectors will be made by.
            run: the folder of the run, or its name on the hub.
            window_seconds: seconds of the longest window.

        Raises:
            MintError: the folder holds an index already.
        """
        folder = Path(folder)
        if is_index(folder):
            raise MintError(f"{folder} holds an index already; open it, or choose another folder")
        # Without segments yet: an index with no clips can be opened and searched.
        folder.mkdir(parents=True, exist_ok=True)
        write_contents(folder, Contents(origin, run, window_seconds))
        return cls(folder)

    def refresh(self) -> None:
        """Show what other processes have written since; errors as the class."""
        self.contents, self.segments = open_contents(self.folder)

    def __len__(self) -> int:
        """Return the number of clips."""
        return sum(int(segment.is_live.sum()) for segment in self.segments)

    @property
    def num_windows(self) -> int:
        """The number of windows of its clips."""
        return sum(int(segment.clips["num_windows"][segment.is_live].sum()) for segment in self.segments)

    def entries(self) -> Iterator[Entry]:
        """Yield the clips, in no certain order."""
        for segment in self.segments:
            for row in np.flatnonzero(segment.is_live).tolist():
                yield segment.entry(row)

    def search(self, text: Tensor, top: int = 10) -> list[Hit]:
        """Return the clips that fit a text best, the best first; exactly those of a pass over all vectors.

        Args:
            text: [E], the text's embedding (`Mint.embed_text`).
            top: the most clips to return.

        Returns:
            Of each clip its best window, by the greatest cosine of the text with one of the window's Q vectors. Clips
            with the same score are in the order of their paths.

        Raises:
            MintError: another width than that of the index, numbers that are not finite, or `top` is below 1.
        """
        return self._search(text, top, "best", 1)

    def like(self, queries: Tensor, top: int = 10) -> list[Hit]:
        """Return the clips that are most like another clip, the most alike first; exactly, as `search`.

        Args:
            queries: [Q, E], the other clip's embedding (`Mint.embed_audio`).
            top: the most clips to return.

        Returns:
            Of each clip its best window, by the mean over the Q queries of the cosine of its vector and the other's.

        Raises:
            MintError: as `search`.
        """
        return self._search(queries, top, "mean", 2)

    def to_lance(self, location: str | Path) -> int:
        """Write the vectors as a table of LanceDB, which ranks alike; see `mint.index.lance.to_lance`."""
        from mint.index.lance import to_lance

        return to_lance(self, location)

    def check_origin(self, origin: Origin, run: str) -> None:
        """Refuse another model than the one that made the index.

        Args:
            origin: the model that is to be used.
            run: what it is called, for the message.

        Raises:
            MintError: it is another one.
        """
        if origin != self.contents.origin:
            raise MintError(
                f"{self.folder} was made by {self.contents.origin} (run {self.contents.run}), but {run} has {origin}; "
                f"use the run that made it, or build another index with `mint index {run} ... --output FOLDER`"
            )

    @contextmanager
    def writing(self) -> Iterator[IndexWriter]:
        """Own the index and change it inside the block; what is added is there for others step by step.

        Raises:
            MintError: another process owns it.
        """
        with owning(self.folder):
            writer = IndexWriter(self.folder)
            # What a process that was killed left behind.
            writer.clear_away()

            try:
                yield writer
            except BaseException:
                writer.write()  # what an interruption or a full disk leaves is kept
                raise
            writer.finish()
        self.refresh()

    def _search(self, query: Tensor, top: int, combination: Combination, dimensions: int) -> list[Hit]:
        if top < 1:
            raise MintError(f"top is {top}; give at least 1")

        contents, segments = self.contents, self.segments
        if not segments:
            return []
        expected = (contents.queries, contents.width)[-dimensions:]
        if tuple(query.shape) != expected:
            raise MintError(f"the query has shape {list(query.shape)}, but the index needs {list(expected)}")
        if not torch.isfinite(query).all():
            raise MintError("the query holds NaN or infinite values; the model's weights are broken")
        return rank(segments, query, top, combination)
