"""`mint classify RUN AUDIO... --labels a,b,c`: rank labels of your choice for audio files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mint.cli._clips import EachClip, add_audio, add_run, load, positive, print_json
from mint.types import MintError

if TYPE_CHECKING:
    from argparse import Namespace

    from mint.cli import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("classify", description="Rank labels of your choice for audio files.")
    add_run(parser)
    add_audio(parser)
    parser.add_argument("--labels", required=True, metavar="A,B,C", help="the candidates, with commas between them")
    parser.add_argument("--prompt", metavar="TEXT", help="instruction that a label would answer")
    parser.add_argument(
        "--method",
        choices=["auto", "vocabulary", "similarity"],
        default="auto",
        help="vocabulary: by the language model (stage 2); similarity: by Bridge-Net alone (stage 1); "
        "auto: what the run can do",
    )
    parser.add_argument("--top", type=positive, metavar="K", help="print only the K best labels")
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Print the labels of each file with their probabilities among the candidates."""
    labels = split_labels(arguments.labels)
    mint = load(arguments.folder)
    clips = EachClip(arguments.audio)
    rows = []
    for path, [scores] in clips.apply(
        lambda path: mint.classify([path], labels, prompt=arguments.prompt, method=arguments.method)
    ):
        ranked = rank(scores)[: arguments.top]
        rows.append({"audio": path, "label": ranked[0]["label"], "labels": ranked})
        if not arguments.json:
            print(path)
            for row in ranked:
                print(f"  {row['probability']:6.1%}  {row['label']}", flush=True)
    if arguments.json:
        print_json(rows)
    return clips.exit_code


def split_labels(text: str) -> list[str]:
    """The labels of `a, b, c` without repetition.

    Raises:
        MintError: none at all.
    """
    labels = [label.strip() for label in text.split(",")]
    labels = list(dict.fromkeys(label for label in labels if label))
    if not labels:
        raise MintError(f"--labels {text!r} names no label; write for example --labels dog,rain,engine")
    return labels


def rank(scores: dict[str, float]) -> list[dict[str, Any]]:
    """Labels from the best to the worst, each with its score and its softmax probability among them all."""
    best = max(scores.values())
    weights = {label: math.exp(score - best) for label, score in scores.items()}
    total = sum(weights.values())
    return [
        {"label": label, "probability": weights[label] / total, "score": scores[label]}
        for label in sorted(scores, key=lambda label: -scores[label])
    ]
