"""The limits of the server, and how a request that it does not answer is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MEBIBYTE = 1 << 20
MOST_TOKENS = 256
"""Longest text that is written for a request, in tokens."""
MOST_CHARACTERS = 4000
"""Longest instruction, label or text of a request."""
MOST_LABELS = 1000
MOST_TEXTS = 256
"""Texts that are embedded by one request."""
MOST_SOUNDS = 16
"""Sounds that are embedded by one request."""


@dataclass(frozen=True)
class Limits:
    """What the server takes on."""

    upload_bytes: int = 64 * MEBIBYTE
    """Largest sound, as a file."""
    seconds: float = 4 * 3600
    """Longest sound."""
    requests: int = 64
    """Requests that are in the server together: those that arrive, wait, and are answered."""
    timeout: float = 120
    """Seconds after which a request is given up."""

    @property
    def body_bytes(self) -> int:
        """Largest body of a request: base64 takes four bytes for three, and the text beside the sound needs some."""
        return self.upload_bytes * 4 // 3 + MEBIBYTE


@dataclass
class Refused(Exception):  # noqa: N818  # it is answered, not reported
    """A request that gets no answer, with the status that says why."""

    status: int
    message: str
    parameter: str | None = None
    """The field of the request that is at fault."""
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """Return the answer in the form that OpenAI's clients read."""
        kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.parameter, "code": self.status}}


def busy(limits: Limits) -> Refused:
    """Return the refusal of a request that finds all places taken."""
    message = f"{limits.requests} requests are being answered, and more do not wait; try again in a moment"
    return Refused(429, message, headers={"Retry-After": "1"})


def unprocessable(message: str, parameter: str | None = None) -> Refused:
    """Return the refusal of a request whose content is wrong."""
    return Refused(422, message, parameter)
