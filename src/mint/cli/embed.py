"""`mint embed RUN AUDIO...`: the embeddings of audio files in the space that they share with texts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mint.cli._clips import add_run
from mint.cli._each import ClipVerb, add_clips, run_each

if TYPE_CHECKING:
    from argparse import Namespace

    from torch import Tensor

    from mint.cli import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "embed",
        description="Embed audio files in the space that they share with texts: one vector for each query of "
        "Bridge-Net.",
    )
    add_run(parser)
    add_clips(parser, ".jsonl, .parquet or .safetensors")
    parser.add_argument(
        "--mean", action="store_true", help="Give one vector for each clip, the mean over the queries, of length 1."
    )
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Print or write the embeddings of each clip."""

    def columns(embedding: Tensor) -> dict[str, Any]:
        # The mean of vectors of length 1 is shorter than 1.
        if arguments.mean:
            embedding = embedding.mean(dim=0)
            embedding = embedding / embedding.norm()
        return {"embedding": embedding.numpy() if arguments.output is not None else embedding.tolist()}

    asked = ClipVerb("embed", {"mean": arguments.mean}, lambda mint, clips: mint.embed_each(clips), columns, json.dumps)
    return run_each(arguments, asked)
