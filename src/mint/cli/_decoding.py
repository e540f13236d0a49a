"""The options of the verbs that generate text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mint.cli._parser import number, positive, whole_number

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from mint.evaluation.settings import Decoding

NAMES = ("decoding", "beams", "top_p", "temperature", "sampling_seed", "max_tokens")


def add_decoding(parser: ArgumentParser, max_tokens: int) -> None:
    """Add the options; a text has `max_tokens` at most unless `--max-tokens` is given."""
    group = parser.add_argument_group("decoding")
    group.add_argument(
        "--decoding",
        choices=["greedy", "beam", "nucleus"],
        help="How a text is chosen: the likeliest token at each step, beam search, or nucleus sampling (default: the "
        "one that the other options belong to, else greedy).",
    )
    group.add_argument("--beams", type=positive, metavar="N", help="The width of the beam search (default: 5).")
    group.add_argument(
        "--top-p", type=number, metavar="P", help="The probability mass for nucleus sampling (default: 0.9)."
    )
    group.add_argument(
        "--temperature", type=number, metavar="T", help="The temperature of nucleus sampling (default: 1)."
    )
    group.add_argument(
        "--sampling-seed", type=whole_number, metavar="N", help="The seed of nucleus sampling (default: 0)."
    )
    group.add_argument(
        "--max-tokens", type=positive, metavar="N", help=f"The longest text, in tokens (default: {max_tokens})."
    )


def read_decoding(arguments: Namespace) -> Decoding:
    """Return what the options say; errors as `Decoding`."""
    from mint.evaluation.settings import CAPTION_TOKENS, Decoding

    return Decoding(
        arguments.decoding,
        arguments.beams,
        arguments.top_p,
        arguments.temperature,
        arguments.sampling_seed,
        CAPTION_TOKENS if arguments.max_tokens is None else arguments.max_tokens,
    )


def generate_options(arguments: Namespace) -> dict[str, Any]:
    """Return the options of `Mint.caption` and `Mint.ask`; none where no option is given."""
    if all(getattr(arguments, name) is None for name in NAMES):
        return {}

    # `Mint` has a longest text of its own, another than that of evaluation.
    options = read_decoding(arguments).options()
    if arguments.max_tokens is None:
        del options["max_new_tokens"]
    return options
