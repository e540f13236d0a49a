"""How many requests does `mint serve` answer, against the same clips one at a time through `Mint`?

The server is a process of its own; 1, 8 and 32 clients ask at once, each again as soon as it was answered. "One at a
time" is what the command line does for each file, `Mint.caption` and `Mint.classify`, with the model loaded before.
Every answer is compared with that of one at a time; a lost or different one ends the measurement. At last more clients
than the server has places for ask at once: each gets its own answer or is sent away.

    python benchmarks/serve.py [--run runs/quickstart]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from common import Row, parser, report
from inference import LABELS, make_run, write_clips
from mint import Mint

RATE, SECONDS, FILES = 16000, 5.0, 32
CLIENTS = (1, 8, 32)
AIM = 3.0
"""Times the throughput of one at a time that is wanted with eight clients."""
PLACES = 64
BOUNDARY = "sound"
KINDS: dict[str, dict[str, str]] = {"caption": {}, "classify": {"labels": ",".join(LABELS)}}


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--run", type=Path, help="folder of a finished run (a model trained for one step)")
    options.add_argument("--files", type=int, default=FILES, help=f"number of clips ({FILES})")
    chosen = options.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        files = write_clips(Path(scratch), RATE, 1.0 if chosen.quick else SECONDS, 8 if chosen.quick else chosen.files)
        run = chosen.run or make_run(Path(scratch) / "run", files, chosen.quick)
        rows = measure(run, files, chosen)
    report("serve", rows, chosen, run=str(chosen.run or "one step of training"))


def measure(run: Path, files: Sequence[Path], options: argparse.Namespace) -> list[Row]:
    """Return the rows of both kinds of question."""
    mint = Mint.from_pretrained(run)
    alone: dict[str, Callable[[Path], Any]] = {
        "caption": lambda path: mint.caption(path),
        "classify": lambda path: best(mint.classify(path, LABELS)),
    }
    rows = []
    with serving(run) as port:
        for kind, ask in alone.items():
            bodies = [body(path, KINDS[kind]) for path in files]
            expected = [ask(path) for path in files]
            load(port, kind, bodies, expected, 8)

            # In turn, so that a machine that slows down slows both.
            rates: dict[str, list[float]] = {}
            waits: dict[int, list[float]] = {}
            for _ in range(options.rounds):
                begin = time.perf_counter()
                for path in files:
                    ask(path)
                rates.setdefault("alone", []).append(len(files) / (time.perf_counter() - begin))
                for clients in CLIENTS:
                    begin = time.perf_counter()
                    waits.setdefault(clients, []).extend(load(port, kind, bodies, expected, clients))
                    rates.setdefault(str(clients), []).append(len(files) / (time.perf_counter() - begin))
            rows += rows_of(kind, rates, waits)
        rows += overload(port, files, alone["caption"])
    return rows


def rows_of(kind: str, rates: dict[str, list[float]], waits: dict[int, list[float]]) -> list[Row]:
    """Return the figures of one kind of question."""
    rows = []
    for clients in CLIENTS:
        case, ours = f"{kind}, clients: {clients}", rates[str(clients)]
        rows.append(
            Row(
                case,
                "requests a second",
                "",
                statistics.median(ours),
                "one at a time",
                statistics.median(rates["alone"]),
                AIM if clients == 8 else None,
                more_is_better=True,
                rounds=(tuple(ours), tuple(rates["alone"])),
            )
        )
        ordered = sorted(waits[clients])
        for share in (0.5, 0.95):
            value = ordered[min(len(ordered) - 1, int(share * len(ordered)))]
            rows.append(Row(case, f"seconds to an answer, p{100 * share:.0f}", "s", value))
    return rows


def load(port: int, kind: str, bodies: Sequence[bytes], expected: Sequence[Any], clients: int) -> list[float]:
    """Ask everything once, by some clients at a time, and return the seconds of each request.

    Raises:
        SystemExit: an answer is lost, or another than expected.
    """
    waits: list[float] = []
    wrong: list[str] = []
    waiting = iter(range(len(bodies)))
    lock = threading.Lock()

    def client() -> None:
        while True:
            with lock:
                index = next(waiting, None)
            if index is None:
                return
            begin = time.perf_counter()
            status, answer = post(port, f"/{kind}", bodies[index])
            waits.append(time.perf_counter() - begin)
            found = answer.get("caption", answer.get("label"))
            if (status, found) != (200, expected[index]):
                wrong.append(f"clip {index}: {status} {found!r}, not {expected[index]!r}")

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong or len(waits) != len(bodies):
        raise SystemExit(f"{len(bodies) - len(waits)} answers are lost, {len(wrong)} are wrong: {wrong[:3]}")
    return waits


def overload(port: int, files: Sequence[Path], ask: Callable[[Path], Any]) -> list[Row]:
    """Ask from more clients than there are places, and return how many were answered.

    Raises:
        SystemExit: a client got neither its own answer nor the status 429.
    """
    count = PLACES + 32
    chosen = [files[number % len(files)] for number in range(count)]
    bodies = [body(path, {}) for path in chosen]
    results: list[tuple[int, Any]] = [(0, None)] * count

    def client(index: int) -> None:
        results[index] = post(port, "/caption", bodies[index])

    threads = [threading.Thread(target=client, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    expected = {path: ask(path) for path in set(chosen)}
    for path, (status, answer) in zip(chosen, results, strict=True):
        if status != 429 and (status, answer.get("caption")) != (200, expected[path]):
            raise SystemExit(f"under overload a client got {status} {answer}")
    answered = sum(status == 200 for status, _ in results)
    return [
        Row(
            f"{count} clients at once, {PLACES} places",
            "share that was answered; the others got 429",
            "%",
            answered / count,
        )
    ]


def best(scores: dict[str, float]) -> str:
    """Return the label with the highest score."""
    return max(scores, key=lambda label: scores[label])


def body(path: Path, fields: dict[str, str]) -> bytes:
    """Return a clip and some fields as a form."""
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    parts.append(b'Content-Disposition: form-data; name="file"; filename="clip"\r\n\r\n' + path.read_bytes())
    return b"".join(f"--{BOUNDARY}\r\n".encode() + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()


def post(port: int, path: str, content: bytes) -> tuple[int, Any]:
    """Send a form, and return the status and the answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=600)) as connection:
        connection.request("POST", path, content, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())


@contextmanager
def serving(run: Path) -> Iterator[int]:
    """Run the server inside the block, and give its port; at the end it must stop in good order."""
    command = [sys.executable, "-m", "mint", "serve", str(run), "--port", "0", "--timeout", "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        try:
            assert process.stdout is not None
            match = re.search(r":(\d+)/", process.stdout.readline())
            if match is None:
                raise SystemExit("the server did not start")
            yield int(match[1])
            process.terminate()
            if process.wait(60):
                raise SystemExit(f"the server ended with {process.returncode}")
        finally:
            process.kill()


if __name__ == "__main__":
    main()
