"""An index of audio: the embeddings of many clips on disk, kept up to date, and exact search in them."""

from mint.index.contents import Origin, is_index
from mint.index.folder import Index
from mint.index.ranking import Hit
from mint.index.segment import Entry
from mint.index.update import Embedder, Updated, list_sources, update_index
from mint.index.writer import IndexWriter

__all__ = [
    "Embedder",
    "Entry",
    "Hit",
    "Index",
    "IndexWriter",
    "Origin",
    "Updated",
    "is_index",
    "list_sources",
    "update_index",
]
