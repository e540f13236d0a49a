"""The scorers of pycocoevalcap, each in a process of its own that may fail or hang without harm.

METEOR and SPICE talk to Java. A METEOR whose Java gives up waits for ever when it is deleted, and Java writes numbers
with a comma where the machine's language does. So a scorer runs in a child process under a time limit; the child and
its Java are killed together, and Java is told to speak English.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import mint

SCORERS = {
    "cider_d": ("cider.cider", "Cider"),
    "rouge_l": ("rouge.rouge", "Rouge"),
    "bleu_4": ("bleu.bleu", "Bleu"),
    "meteor": ("meteor.meteor", "Meteor"),
    "spice": ("spice.spice", "Spice"),
}
"""The module and the class of each metric in pycocoevalcap."""
JAVA_OPTIONS = (
    "-Duser.language=en",
    "-Duser.country=US",
    "-Dfile.encoding=UTF-8",
    *(
        f"--add-opens=java.base/java.{package}=ALL-UNNAMED"
        for package in ("lang", "math", "net", "text", "util", "util.concurrent")
    ),
)
"""Decimal points and UTF-8 on every machine; SPICE's reflective library stops on Java 17 unless these are open."""


PACKAGE = Path(mint.__file__).parent


class ScorerError(Exception):
    """A scorer, or the Java that it uses, that gave no result; the message is the reason."""


def score(
    name: str, references: Sequence[Sequence[str]], generated: Sequence[str], seconds: float
) -> tuple[float, list[float]]:
    """Score tokenised captions in a child process.

    Args:
        name: a key of `SCORERS`.
        references: the references of each of N clips.
        generated: the caption of each clip [N].
        seconds: the time limit.

    Returns:
        The value over the corpus, and that of each clip [N].

    Raises:
        ScorerError: the scorer failed, was killed, or did not end in time.
    """
    command = [sys.executable, "-m", "mint.evaluation.metrics.scorers", name]
    answer = run(
        command, json.dumps([references, generated]).encode(), seconds, {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    try:
        result = json.loads(answer)
    except ValueError:
        raise ScorerError("its process gave no result") from None
    if "error" in result:
        raise ScorerError(result["error"])
    return float(result["corpus"]), [float(value) for value in result["clips"]]


def run(
    command: Sequence[str],
    text: bytes,
    seconds: float,
    variables: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> bytes:
    """Run a command under a time limit and return what it printed; nothing that it started outlives it.

    Args:
        command: the program and its arguments.
        text: its input.
        seconds: the time limit.
        variables: added to its environment, beside the options for Java.
        folder: where it runs; None: the working directory.

    Raises:
        ScorerError: it could not be started, failed, or did not end in time.
    """
    environment = {**os.environ, **(variables or {}), **_java_variables()}
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=folder,
            start_new_session=True,  # a process group of its own, to be killed as a whole
        )
    except OSError as error:
        raise ScorerError(f"{command[0]} cannot be started: {error.strerror or error}") from None

    try:
        printed, complaints = process.communicate(text, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise ScorerError(f"it did not end within {seconds:.0f} seconds") from None
    finally:
        _kill(process)

    if process.returncode:
        last = complaints.decode(errors="replace").strip().splitlines()[-1:] or [f"exit status {process.returncode}"]
        raise ScorerError(last[0])
    return printed


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it started; a Java that it left behind would hold the pipes open."""
    with suppress(ProcessLookupError, PermissionError):  # all of them have ended
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None and not pipe.closed:
            pipe.close()
    process.wait()


def _java_variables() -> dict[str, str]:
    """Return the variables through which Java reads options: ours come last, and the last one counts."""
    options = " ".join(JAVA_OPTIONS)
    variables = {"JDK_JAVA_OPTIONS": f"{os.environ.get('JDK_JAVA_OPTIONS', '')} {options}".strip()}
    # Where it is set, this variable overrides the other one and the command line.
    if stronger := os.environ.get("_JAVA_OPTIONS"):
        variables["_JAVA_OPTIONS"] = f"{stronger} {' '.join(JAVA_OPTIONS[:3])}"
    return variables


def _compute(name: str, references: Sequence[Sequence[str]], generated: Sequence[str]) -> dict[str, Any]:
    """Return the result of pycocoevalcap's scorer as JSON values."""
    module, scorer = SCORERS[name]
    build: Any = getattr(importlib.import_module(f"pycocoevalcap.{module}"), scorer)
    options = {"verbose": 0} if name == "bleu_4" else {}
    corpus, clips = build().compute_score(
        dict(enumerate(map(list, references))), {clip: [caption] for clip, caption in enumerate(generated)}, **options
    )

    if name == "bleu_4":  # BLEU-1 to BLEU-4
        corpus, clips = corpus[3], clips[3]
    if name == "spice":
        clips = [clip["All"]["f"] for clip in clips]
    return {"corpus": float(corpus), "clips": [float(value) for value in clips]}


def _main() -> None:
    """Read captions from the standard input and print their scores, or why there are none."""
    # What the scorers print themselves must not mix with the result.
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def finish(result: dict[str, Any]) -> NoReturn:
        json.dump(result, results)
        results.flush()
        os._exit(0)  # without any clean-up

    try:
        result = _compute(sys.argv[1], *json.load(sys.stdin))
    except BaseException as error:
        # As long as the error lives, so does the scorer: Meteor waits for ever when it is deleted after a failure.
        finish({"error": f"{type(error).__name__}: {error}"})
    finish(result)


if __name__ == "__main__":
    _main()
