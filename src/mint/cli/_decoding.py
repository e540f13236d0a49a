"""The options of the verbs that generate text."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, Any

from mint.cli._clips import positive

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from mint.evaluation.settings import Decoding

NAMES = ("decoding", "beams", "top_p", "temperature", "sampling_seed", "max_tokens")


def add_decoding(parser: ArgumentParser, max_tokens: str = "") -> None:
    """Add the options; `max_tokens` says what happens without `--max-tokens`."""
    group = parser.add_argument_group("decoding")
    group.add_argument(
        "--decoding",
        choices=["greedy", "beam", "nucleus"],
        help="the likeliest token at a time, beam search, or sampling (default: by the other options, else greedy)",
    )
    group.add_argument("--beams", type=positive, metavar="N", help="width of the beam search (default: 5)")
    group.add_argument("--top-p", type=number, metavar="P", help="of nucleus sampling (default: 0.9)")
    group.add_argument("--temperature", type=number, metavar="T", help="of nucleus sampling (default: 1)")
    group.add_argument("--sampling-seed", type=int, metavar="N", help="of nucleus sampling (default: 0)")
    group.add_argument("--max-tokens", type=positive, metavar="N", help=f"longest text, in tokens{max_tokens}")


def number(text: str) -> float:
    """An argument that must be a number."""
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a number") from None


def read_decoding(arguments: Namespace) -> Decoding:
    """What the options say; errors as `Decoding`."""
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
    """The same for `Mint.caption` and `Mint.ask`; nothing where no option is given."""
    if all(getattr(arguments, name) is None for name in NAMES):
        return {}
    options = read_decoding(arguments).options()
    if arguments.max_tokens is None:
        del options["max_new_tokens"]
    return options
