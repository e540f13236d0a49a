"""What does a search in an index cost, and what does an index keep of a ranking?

Made-up embeddings of clips, 8 vectors of width 256 each as the quickstart's stage 1 gives them: a thousand kinds of
sound, clips around each, vectors around each clip; queries are texts near a kind. 100,000 clips, or a million with
`--all`, which needs 13 GB of disk for a while (`--folder` says where). Measured are the time to write the index, the
time to open it, one query for the ten best, and the memory that a query takes beyond the mapped files. The ranking must
be that of a pass over all vectors in double precision, or nothing is reported. Recall is the share of the ten best
that codes of 8 bits alone, or vectors in half precision, would find.

    python benchmarks/index_search.py --all
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from common import Row, alternate, compare, parser, report, stopwatch
from mint.evaluation.metrics.similarity import maximum
from mint.index import Entry, Index, Origin

QUERIES, WIDTH, KINDS, TOP = 8, 256, 1000, 10
CLIPS, QUICK_CLIPS, ALL_CLIPS = 100_000, 2_000, 1_000_000
TEXTS, QUICK_TEXTS = 10, 3
AT_ONCE = 4096
"""Clips that are made together."""
SECONDS = 1.0
"""Seconds of a query among a million clips that are wanted at most."""
BYTES = 2**30
"""Memory beyond the mapped files that is wanted at most."""


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--folder", type=Path, help="folder for the index, which is removed again (a temporary one)")
    chosen = options.parse_args()
    clips = QUICK_CLIPS if chosen.quick else ALL_CLIPS if chosen.all else CLIPS

    folder = Path(tempfile.mkdtemp(prefix="mint-index-", dir=chosen.folder))
    try:
        rows = measure(folder / "index", clips, chosen)
    finally:
        shutil.rmtree(folder)
    report("index_search", rows, chosen)


def measure(folder: Path, clips: int, options: argparse.Namespace) -> list[Row]:
    """All rows."""
    case = f"{clips:,} clips of {QUERIES} vectors of {WIDTH}"
    texts = made_texts(QUICK_TEXTS if options.quick else TEXTS)
    built = stopwatch(lambda: build(folder, clips))
    opened = stopwatch(lambda: Index.open(folder))
    index = Index.open(folder)
    size = sum(path.stat().st_size for path in folder.iterdir())

    scores = naive_scores(index, texts)  # name -> [T, N]
    recall = {name: recall_at(scores["double"], other) for name, other in scores.items()}
    check(index, texts, scores["double"])

    number = 0

    def search() -> None:
        nonlocal number
        number += 1
        index.search(texts[number % len(texts)], TOP)

    def every_vector() -> None:
        for segment in index.segments:
            maximum(segment.columns["vectors"], texts[:1]).amax()

    rounds = alternate({"MINT": search, "pass over all vectors, float32": every_vector}, options.rounds)
    memory = anonymous_memory(search)
    cpu = tuple(processor_seconds(search) for _ in range(options.rounds))
    like = tuple(stopwatch(lambda: index.like(made_texts(QUERIES), TOP)) for _ in range(options.rounds))

    is_full = clips == ALL_CLIPS
    return [
        Row(case, "writing the index", "s", built),
        Row(case, "size of the index", "B", size),
        Row(case, "opening the index", "s", opened),
        *compare(case, "one query", rounds),
        Row(case, "one query: the aim", "s", float(np.median(rounds["MINT"])), "", SECONDS if is_full else None, 1.0),
        Row(case, "one query: processor time of all threads", "s", float(np.median(cpu)), rounds=(cpu,)),
        Row(case, "memory beyond the mapped files", "B", memory, "the aim", BYTES, 1.0),
        Row(case, "what is like a clip", "s", float(np.median(like)), rounds=(like,)),
        Row(case, "recall of the ten best: MINT", "%", 1.0),
        Row(
            case,
            "recall: codes of 8 bits alone, against half precision",
            "%",
            recall_at(scores["half"], scores["codes"]),
        ),
        Row(case, "recall: codes of 8 bits alone", "%", recall["codes"]),
        Row(case, "recall: vectors in half precision", "%", recall["half"]),
    ]


def made_kinds() -> Tensor:
    """The centres of the kinds of sound [K, E]."""
    return functional.normalize(torch.randn(KINDS, WIDTH, generator=torch.Generator().manual_seed(0)), dim=-1)


def made_clips(first: int, count: int) -> Tensor:
    """Embeddings [N, Q, E] of clips from a number on."""
    generator = torch.Generator().manual_seed(1 + first)
    kinds = made_kinds()[torch.randint(KINDS, (count,), generator=generator)]
    clips = kinds[:, None] + 0.05 * torch.randn(count, 1, WIDTH, generator=generator)
    return functional.normalize(clips + 0.02 * torch.randn(count, QUERIES, WIDTH, generator=generator), dim=-1)


def made_texts(count: int) -> Tensor:
    """Embeddings [T, E] of texts, each near a kind."""
    generator = torch.Generator().manual_seed(12345)
    return functional.normalize(made_kinds()[:count] + 0.05 * torch.randn(count, WIDTH, generator=generator), dim=-1)


def build(folder: Path, clips: int) -> None:
    """Write the index."""
    index = Index.create(folder, Origin("made up", "made up"), "made up", 30.0)
    with index.writing() as writer:
        for first in range(0, clips, AT_ONCE):
            for number, vectors in enumerate(made_clips(first, min(AT_ONCE, clips - first)), start=first):
                writer.add(Entry(f"/collection/{number // 1000:04d}/{number:07d}.flac"), [(0.0, 10.0)], vectors[None])


def naive_scores(index: Index, texts: Tensor) -> dict[str, Tensor]:
    """Similarities [T, N] of all clips, in the order of their rows, as several precisions give them."""
    parts: dict[str, list[Tensor]] = {"double": [], "half": [], "codes": []}
    for segment in index.segments:
        columns = segment.columns
        for first in range(0, len(segment), AT_ONCE):
            block = slice(first, first + AT_ONCE)
            vectors = columns["vectors"][block]  # [B, Q, E]
            half, codes = columns["halves"][block].float(), quantised(vectors)
            for name, numbers in (("double", vectors.double()), ("half", half), ("codes", codes)):
                products = numbers @ texts.to(numbers.dtype).T  # [B, Q, T]
                parts[name].append(products.amax(dim=1).T)
    return {name: torch.cat(some, dim=1) for name, some in parts.items()}


def quantised(vectors: Tensor) -> Tensor:
    """Vectors [B, Q, E] as codes of 8 bits with a scale for each vector would keep them."""
    scales = vectors.abs().amax(dim=-1, keepdim=True) / 127
    return (vectors / scales).round() * scales


def recall_at(right: Tensor, other: Tensor) -> float:
    """Share of the best clips by `right` [T, N] that are among the best by `other` [T, N]."""
    shares = []
    for ours, theirs in zip(right.topk(TOP).indices.tolist(), other.topk(TOP).indices.tolist(), strict=True):
        shares.append(len(set(ours) & set(theirs)) / TOP)
    return sum(shares) / len(shares)


def check(index: Index, texts: Tensor, scores: Tensor) -> None:
    """Stop unless the index ranks as a pass over all vectors."""
    paths = [entry.path for entry in index.entries()]
    for text, row in zip(texts, scores, strict=True):
        expected = [paths[number] for number in row.topk(TOP).indices.tolist()]
        if [hit.path for hit in index.search(text, TOP)] != expected:
            raise SystemExit("the ranking is not that of a pass over all vectors")


def processor_seconds(call: Any) -> float:
    """Seconds that all threads of the process compute in a call, whatever else the machine does."""
    start = time.process_time()
    call()
    return time.process_time() - start


def anonymous_memory(call: Any) -> float:
    """Most memory, mapped files apart, that a call takes."""

    def now() -> int:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

    def watch() -> None:
        while not done.is_set():
            sizes.append(now())
            time.sleep(0.002)

    before = now()
    sizes = [before]
    done = threading.Event()
    thread = threading.Thread(target=watch)
    thread.start()
    call()
    done.set()
    thread.join()
    return max(sizes) - before


if __name__ == "__main__":
    main()
