"""What a tokenizer's chat template writes around a user's message, where instruct models expect their instruction.

The template is rendered once around a mark, and taken apart at it. The soft prompt then opens the message, so that
[head; prompt; tail] without it is to the token what transformers' `apply_chat_template` gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from mint.types import MintError

MARK = "\ue000"
"""A character of Unicode's private use: in no template, and no white space that a template would strip."""


@dataclass(frozen=True)
class Frame:
    """The text of a conversation around its one message."""

    head: str
    """What stands before the message: what the model is told first, and whose turn it is."""
    tail: str
    """What stands after it, up to where the answer begins."""


def frame_message(tokenizer: Any, identity: str) -> Frame:
    """Return what a chat template writes around a user's message.

    Args:
        tokenizer: a tokenizer of transformers.
        identity: name of the language model, for the error.

    Raises:
        MintError: the tokenizer has no chat template, or one that does not write a message as it is.
    """
    if not tokenizer.chat_template:
        raise MintError(
            f"language.chat_template is true, but the tokenizer of {identity} has none; set it to false, or choose an "
            "instruct model"
        )

    try:
        written = tokenizer.apply_chat_template(
            [{"role": "user", "content": MARK}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,  # Qwen3 and others would reason first; templates without it ignore it
        )
    except (TemplateError, ValueError, TypeError) as error:
        written = f"({error})"

    # A template that writes the message twice, or not at all, leaves the mark where it cannot be taken apart.
    head, mark, tail = written.partition(MARK)
    if not mark or MARK in tail:
        raise MintError(
            f"language.chat_template: that of {identity} cannot be used, as it does not write a user's message once "
            f"({' '.join(written.split())[:80]!r}); set it to false"
        )
    return Frame(head, tail)
