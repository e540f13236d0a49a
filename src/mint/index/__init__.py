"""An index of audio: the embeddings of many clips on disk, kept up to date, and exact search in them."""

from mint.index.contents import Origin, is_index
from mint.index.folder import Index
from mint.index.ranking import Hit
from mint.index.segment import Entry
from mint.index.writer import IndexWriter

__all__ = ["Entry", "Hit", "Index", "IndexWriter", "Origin", "is_index"]
