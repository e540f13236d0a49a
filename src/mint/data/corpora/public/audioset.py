"""*AudioSet* (Gemmeke et al., 2017): 10 s segments of YouTube videos with the sounds in them, 527 classes.

Read as published: `balanced_train_segments.csv`, `unbalanced_train_segments.csv` and `eval_segments.csv`, each under
three lines of comment, its labels a quoted list of machine ids, and `class_labels_indices.csv`. The recordings are the
segments, cut, below the same folder, under one of the names that downloaders give them (`segment_names`). Answers are
in the order of the class indices. The evaluation segments are the test split.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from mint.data.corpora.public.reading import Recordings, Skip, csv_lines, csv_rows, find, find_any, ignore
from mint.data.manifests.prompts import PROMPTS
from mint.types import Example

SPLITS = {"balanced_train": "train", "unbalanced_train": "train", "eval": "test"}


def read_audioset(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the segments of the CSVs that are there.

    Raises:
        MintError: there is no class list or no segment CSV in the folder.
    """
    classes = find("audioset", source, "class_labels_indices.csv")
    find("audioset", source, *(f"{part}_segments.csv" for part in SPLITS))
    rows = csv_rows(classes, ("mid", "display_name"), skip)
    names = {row["mid"]: row["display_name"] for row in rows}
    order = {mid: place for place, mid in enumerate(names)}
    recordings = Recordings(audio or source)
    for part, split in SPLITS.items():
        if (segments := find_any(source, f"{part}_segments.csv")) is None:
            continue
        for number, line in csv_lines(segments, after_space=True):
            if line[0].startswith("#"):
                continue
            if len(line) != 4:
                skip(f"{segments.name}, line {number}", f"broken line of {segments.name}")
                continue
            video, start, end, mids = line
            known = sorted((mid for mid in mids.split(",") if mid in order), key=order.__getitem__)
            if not known:
                skip(video, "none of its labels is in the class list")
                continue
            labels = tuple(names[mid] for mid in known)
            yield Example(
                id=f"{video}_{start}",
                audio=recordings.find(*segment_names(video, float(start), float(end))),
                task="audioset",
                split=split,
                corpus="audioset",
                prompt=PROMPTS["AudioSet"],
                answer=", ".join(labels),
                labels=labels,
                metadata={"youtube_id": video, "video_start": float(start), "video_end": float(end), "part": part},
            )


def segment_names(video: str, start: float, end: float) -> list[str]:
    """Names, without suffix, that downloaders give to a segment of a YouTube video, the surest first."""
    names = [f"{mark}{video}{span}" for span in _spans(start, end) for mark in ("", "Y")]
    return [*names, f"[{video}]-[{start:g}-{end:g}]", video, f"Y{video}"]


@lru_cache(maxsize=1 << 16)
def _spans(start: float, end: float) -> tuple[str, ...]:
    """What follows the video's id: most of two million segments begin at one of few seconds."""
    starts, ends = (
        (f"{round(1000 * at)}", f"{at:g}", f"{at:.1f}", f"{at:.3f}", f"{round(at):06d}") for at in (start, end)
    )
    both = [f"_{one}{mark}{other}" for mark in "_-" for one, other in zip(starts, ends, strict=True)]
    return tuple(dict.fromkeys([*both, *(f"_{one}" for one in reversed(starts))]))
