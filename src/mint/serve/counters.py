"""Counters of the server in the text format that Prometheus reads."""

from __future__ import annotations

import threading
from collections import defaultdict

HELP = {
    "mint_requests_total": ("counter", "Requests that were answered, by path and status."),
    "mint_request_seconds_total": ("counter", "Seconds from the arrival of requests to the end of their answers."),
    "mint_batches_total": ("counter", "Batches that the models computed, by kind."),
    "mint_batch_requests_total": ("counter", "Questions in these batches, by kind."),
    "mint_model_seconds_total": ("counter", "Seconds in which the models computed, by kind."),
    "mint_audio_seconds_total": ("counter", "Seconds of sound that were uploaded."),
    "mint_requests_open": ("gauge", "Requests that arrive, wait or are being answered."),
    "mint_questions_waiting": ("gauge", "Questions that wait for the models."),
}
"""Kind and meaning of each counter."""
PLAIN = ("mint_audio_seconds_total", "mint_requests_open", "mint_questions_waiting")
"""Counters without labels."""


class Counters:
    """Numbers by name and labels; several threads may count."""

    def __init__(self) -> None:
        self._values: defaultdict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)
        self._lock = threading.Lock()
        # Those without labels are shown from the beginning.
        for name in PLAIN:
            self.add(name, 0.0)

    def add(self, name: str, amount: float = 1.0, /, **labels: str) -> None:
        """Add to a counter; gauges may fall."""
        with self._lock:
            self._values[name, tuple(sorted(labels.items()))] += amount

    def value(self, name: str, **labels: str) -> float:
        """Return a counter as it stands; 0 if nothing was counted."""
        with self._lock:
            return self._values.get((name, tuple(sorted(labels.items()))), 0.0)

    def text(self) -> str:
        """Return all counters as `GET /metrics` shows them."""
        with self._lock:
            values = sorted(self._values.items())

        lines = []
        for name, (kind, meaning) in HELP.items():
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
            rows = [(labels, value) for (other, labels), value in values if other == name]

            for labels, value in rows:
                inside = ",".join(f'{key}="{text}"' for key, text in labels)
                lines.append(f"{name}{{{inside}}} {value:.15g}" if inside else f"{name} {value:.15g}")
        return "\n".join(lines) + "\n"
