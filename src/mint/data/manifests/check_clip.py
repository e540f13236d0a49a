"""The audio of one line of a manifest: whether it can be read, is as long as the line says, and how it sounds."""

from __future__ import annotations

from dataclasses import dataclass

from mint.data.audio.decode import probe
from mint.data.audio.listen import TOLERANCE, listen
from mint.data.audio.members import HEAD, digest, locate
from mint.data.features.stored import is_stored, read_stored
from mint.types import Example, MintError


@dataclass(frozen=True)
class ClipCheck:
    """What the audio of a clip showed."""

    seconds: float = 0.0
    """Length of the clip, as far as there is audio."""
    decoded: bool = False
    """Whether it was decoded as a whole."""
    fault: tuple[str, str] | None = None
    """Kind (`audio` or `duration`) and message, of a clip that is not as its line or its file's header says."""
    findings: tuple[str, ...] = ()
    """What is wrong with how it sounds."""
    content: tuple[int, str] | None = None
    """Size of the file and digest of its beginning, if it was decoded."""


def check_clip(example: Example, decode: bool) -> ClipCheck:
    """Read the header of a clip's file, and decode its windows if asked to."""
    path = example.audio
    try:
        if is_stored(path):  # features, which have no length in seconds
            read_stored(example, identity=None)
            return ClipCheck(content=_beginning(example) if decode else None)

        length = probe(path)[0]
        # A start beyond the end is refused by decoding, in the same words as elsewhere.
        if not decode and example.start < length:
            return _of_length(example, length)

        heard = listen(path, example.start, example.duration)
        content = _beginning(example)
    except MintError as error:
        return ClipCheck(fault=("audio", str(error)))
    except OSError as error:  # gone while it was read
        return ClipCheck(fault=("audio", f"{path}: it cannot be read ({error}); check the disk"))

    # A file that was cut off has the header of the whole.
    promised = max(length, heard.promised)
    expected = example.start + _seconds(example, promised)
    if heard.end < expected - TOLERANCE:
        message = (
            f"{path}: its header promises audio up to {expected:.2f} s, but there is some up to {heard.end:.2f} s; "
            "fetch or export it again"
        )
        return ClipCheck(heard.end - example.start, False, ("audio", message), heard.findings, content)
    return _of_length(example, promised, True, heard.findings, content)


def _of_length(
    example: Example,
    length: float,
    decoded: bool = False,
    findings: tuple[str, ...] = (),
    content: tuple[int, str] | None = None,
) -> ClipCheck:
    """Return what is known of a clip in a file of so many seconds; a clip that ends after its file is at fault."""
    fault = None
    end = example.start + (example.duration or 0.0)
    if end > length + TOLERANCE:
        message = f"the clip ends at {end:.2f} s, the file at {length:.2f} s; correct start or duration"
        fault = ("duration", f"{example.audio}: {message}")
    return ClipCheck(_seconds(example, length), decoded, fault, findings, content)


def _seconds(example: Example, length: float) -> float:
    """Return the seconds of a clip in a file of so many seconds."""
    rest = length - example.start
    return rest if example.duration is None else min(example.duration, rest)


def _beginning(example: Example) -> tuple[int, str]:
    """Return what tells most files apart: the size, and the digest of the first bytes."""
    return locate(example.audio).size, digest(example.audio, HEAD)
