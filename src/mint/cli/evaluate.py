"""`mint evaluate`: score a finished run on the held-out clips of its manifests, or of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mint.cli._decoding import add_decoding, read_decoding
from mint.cli._parser import positive

if TYPE_CHECKING:
    from argparse import Namespace

    from mint.cli import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "evaluate",
        description="Score a finished run on held-out clips, and write a results file.",
    )
    parser.add_argument(
        "run_folder", metavar="RUN", type=Path, help="The folder with stage1 and stage2, or one of these two."
    )
    parser.add_argument("--task", action="append", metavar="TASK", help="Measure only this task. May be repeated.")
    parser.add_argument(
        "--manifest",
        action="append",
        metavar="FILE",
        help="Measure the clips of this manifest. May be repeated (default: the manifests of the recipe).",
    )
    parser.add_argument(
        "--scoring",
        choices=("sum", "mean", "prior", "calibrated"),
        help="How a label is scored by its tokens: the sum of their log-likelihoods, the mean, the sum less its mean "
        "over all clips, or its share by the mean above that in reference clips (default: calibrated, if the run keeps "
        "reference clips, else sum).",
    )
    parser.add_argument(
        "--template",
        action="append",
        metavar="TEXT",
        help="A text with {label} in it, for similarity ranking. May be repeated; the embeddings are then averaged "
        "(default: the prompt of the task).",
    )
    parser.add_argument(
        "--clips", type=positive, metavar="N", help="Measure retrieval and captions on so many clips (default: all)."
    )
    parser.add_argument(
        "--rerank",
        type=positive,
        metavar="K",
        help="Let the matching head re-rank the first K items of a query, at least 10 (default: no re-ranking).",
    )
    add_decoding(parser, 30)
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="The results file (default: RUN/results-TASKS.json)."
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="Write an HTML report to this file as well.")
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Evaluate, write the results file, print its table."""
    from mint.evaluation.evaluate_run import evaluate_run
    from mint.evaluation.results.file import markdown_table
    from mint.evaluation.settings import Settings

    settings = Settings(
        arguments.scoring,
        tuple(arguments.template or ()),
        read_decoding(arguments),
        arguments.rerank,
        arguments.clips,
        arguments.clips,
    )
    results, path = evaluate_run(
        arguments.run_folder, arguments.task, arguments.manifest, settings, arguments.output, arguments.report
    )
    print(markdown_table(results.rows))
    print(f"Written to {path}" + (f" and {arguments.report}" if arguments.report else ""))
    # Without a row every task has failed; the file says why.
    return 0 if results.rows else 2
