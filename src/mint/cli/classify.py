"""`mint classify RUN AUDIO... --labels a,b,c`: rank labels of your choice for audio files."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mint.cli._clips import add_run
from mint.cli._each import ClipVerb, add_clips, run_each
from mint.cli._parser import positive
from mint.cli._timeline import add_timeline, refuse_stray_options, run_timeline
from mint.text_files import one_line, text_lines
from mint.types import MintError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from mint.cli import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("classify", description="Rank labels of your choice for audio files.")
    add_run(parser)
    add_clips(parser, ".jsonl, .csv or .parquet")
    parser.add_argument(
        "--labels",
        required=True,
        action="append",
        metavar="A,B,C",
        help="The candidates, separated by commas; a label that holds a comma stands in quotes: "
        "'\"rain, heavy\",dog'. @FILE reads them from a text file, one label a line. May be repeated.",
    )
    parser.add_argument(
        "--prompt", metavar="TEXT", help="The instruction that a label would answer (default: 'This is a sound of')."
    )
    parser.add_argument(
        "--method",
        choices=["auto", "vocabulary", "similarity"],
        default="auto",
        help="How labels are scored. vocabulary: by the language model (stage 2); similarity: by Bridge-Net alone "
        "(stage 1); auto (default): by the language model if the run has one.",
    )
    parser.add_argument("--top", type=positive, metavar="K", help="Print only the K best labels of each file.")
    add_timeline(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Print or write the labels of each clip with their probabilities, or the best of each stretch of recordings."""
    # Both are checked before the model is loaded, which may take minutes.
    labels = read_labels(arguments.labels)
    _refuse_stray_labels(arguments.audio)
    refuse_stray_options(arguments)
    prompt, method, top = arguments.prompt, arguments.method, arguments.top
    if arguments.every is not None:
        if top is not None:
            raise MintError("--top belongs to whole clips; a timeline names the best label of each stretch")
        times = {"every": arguments.every, "hop": arguments.hop}
        return run_timeline(
            arguments,
            arguments.audio,
            lambda mint, path: mint.timeline(path, **times, labels=labels, prompt=prompt, method=method),
        )

    def columns(scores: dict[str, float]) -> dict[str, Any]:
        # With the model, which is loaded by now.
        from mint.inference.ranking import rank_labels

        ranked = rank_labels(scores)[:top]  # the probabilities are those among all labels
        return {"label": ranked[0]["label"], "labels": ranked}

    asked = ClipVerb(
        "classify",
        {"labels": labels, "prompt": prompt, "method": method, "top": top},
        lambda mint, clips: mint.classify_each(clips, labels, prompt=prompt, method=method),
        columns,
        _show,
    )
    return run_each(arguments, asked)


def _show(row: dict[str, Any]) -> str:
    """Return the lines of one clip for a person."""
    lines = [f"  {label['probability']:6.1%}  {label['label']}" for label in row["labels"]]
    return "\n".join([row["audio"], *lines])


def read_labels(values: Sequence[str]) -> list[str]:
    """Return the labels that the values of `--labels` name, without repetition.

    Raises:
        MintError: a value names none, or a quote in it is never closed; or a file cannot be read as text.
    """
    labels: dict[str, None] = {}  # in the order given, each once
    for value in values:
        named = _labels_of_file(value[1:]) if value.startswith("@") else _labels_of_list(value)
        found = [one_line(label) for label in named if label.strip()]
        if not found:
            raise MintError(f"--labels {value!r} names no label; write for example --labels dog,rain,engine")
        labels.update(dict.fromkeys(found))
    return list(labels)


def _labels_of_file(path: str) -> list[str]:
    if not path:
        raise MintError("--labels '@' names no file; write for example --labels @labels.txt")
    return list(text_lines(Path(path)))


def _labels_of_list(value: str) -> list[str]:
    try:
        rows = list(csv.reader(io.StringIO(value, newline=""), skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise MintError(
            f"--labels {value!r} cannot be read ({error}); put a label that holds a comma between two quotes, "
            "and write a quote inside it twice"
        ) from None
    return [label for row in rows for label in row]


def _refuse_stray_labels(audio: Sequence[str]) -> None:
    """Refuse words that are most likely labels, as in `--labels dog cat`."""
    for path in audio:
        if not Path(path).suffix and not Path(path).exists():
            raise MintError(f"{path}: no such audio file; if it is a label, write --labels A,{path} with a comma")
