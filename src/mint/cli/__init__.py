"""The `mint` command: a table of verbs, and the errors a person sees.

Each verb lives in its own module with `add_parser(subparsers)`, which adds the verb and sets `run`. Only the module of
the chosen verb is imported, and it imports torch and its kin inside `run`: help and usage errors answer at once.

Exit codes: 0 done; 1 unexpected error; 2 a mistake that the user can mend; 130 interrupted; 141 the reader of a pipe
went away.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import io
import os
import signal
import sys
import textwrap
import threading
import traceback
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from mint import __version__
from mint.cli._parser import Parser
from mint.types import MintError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from types import FrameType

Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"


class Verb(NamedTuple):
    """One row of the table of verbs."""

    module: str
    help: str
    resume: str = ""
    """What to do after an interruption; empty: nothing was kept."""


AGAIN = "run the same command again to continue"
RESUME = "run the same command with --resume to continue"

VERBS = {
    "quickstart": Verb(
        "mint.cli.quickstart", "Train, evaluate and report, on rendered clips or on your own recordings.", AGAIN
    ),
    "assets": Verb("mint.cli.assets", "List, fetch or verify the weights that quickstart needs.", AGAIN),
    "data": Verb("mint.cli.data", "List, prepare, validate, compare or copy corpora and manifests.", AGAIN),
    "cache": Verb("mint.cli.cache", "Encode the clips of a recipe before training.", AGAIN),
    "train": Verb("mint.cli.train", "Train one stage from a recipe.", RESUME),
    "evaluate": Verb("mint.cli.evaluate", "Score a finished run on held-out clips."),
    "tables": Verb("mint.cli.tables", "Write the tables of the paper, with your results beside its own."),
    "compare": Verb("mint.cli.compare", "Tell whether two runs differ by more than chance."),
    "ablate": Verb("mint.cli.ablate", "Measure what each part of the method is worth.", AGAIN),
    "caption": Verb("mint.cli.caption", "Describe audio files in words."),
    "classify": Verb("mint.cli.classify", "Rank labels of your choice for audio files."),
    "ask": Verb("mint.cli.ask", "Answer an instruction about audio files."),
    "embed": Verb("mint.cli.embed", "Embed audio files in the space that they share with texts."),
    "search": Verb("mint.cli.search", "Rank audio files by how well they fit a description."),
    "index": Verb("mint.cli.index", "Make an index of audio to search in, or bring one up to date.", AGAIN),
    "serve": Verb("mint.cli.serve", "Serve an HTTP API and a web page over a trained model."),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (None: that of the process) and return its exit code."""
    _open_closed_streams()
    arguments, debug = _take_debug(list(sys.argv[1:] if argv is None else argv))

    # The verb is known before anything is parsed, as its module brings its arguments.
    verb = next((argument for argument in arguments if not argument.startswith("-")), None)
    if not debug:
        quiet_libraries()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be valid Unicode

    with _noticing_interrupts(verb, ends_process=argv is None):
        try:
            code = _run(verb, arguments)
            sys.stdout.flush()
            # A library may have swallowed an interruption, and with it part of the work.
            if interrupted():
                raise KeyboardInterrupt
            return code
        except BrokenPipeError:
            _discard_output()
            return 141
        except (Exception, KeyboardInterrupt) as error:
            if debug:
                traceback.print_exc()

            # A library may turn an interruption into an error of its own.
            line, code = describe(KeyboardInterrupt() if interrupted() else error, verb)
            print(f"mint: {line}", file=sys.stderr)

            try:
                sys.stdout.flush()
            except OSError:  # as where the disk is full
                _discard_output()
            return code


_interrupted = threading.Event()


def interrupted() -> bool:
    """Return whether the user has interrupted the command, even where a library swallowed it."""
    return _interrupted.is_set()


@contextmanager
def _noticing_interrupts(verb: str | None, ends_process: bool) -> Iterator[None]:
    """Raise KeyboardInterrupt at Ctrl-C inside the block, and note that it came.

    Args:
        verb: the verb that runs.
        ends_process: whether the block is all that the process does.
    """

    def interrupt(_: int, frame: FrameType | None) -> None:
        _interrupted.set()
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second time ends the process at once, whatever it waits for
        # Libraries swallow what is raised while they are imported, and nothing needs to be tidied up then.
        if ends_process and _is_importing(frame):
            line, code = describe(KeyboardInterrupt(), verb)
            print(f"mint: {line}", file=sys.stderr, flush=True)
            os._exit(code)
        raise KeyboardInterrupt

    _interrupted.clear()

    # Other threads cannot set a handler; another handler than Python's own, or none as under nohup, is left alone.
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_importing(frame: FrameType | None) -> bool:
    """Return whether a module is being imported by the code that runs."""
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False


def _open_closed_streams() -> None:
    """Put the null device where a stream was closed (`>&-`), lest a file of ours takes its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115  # open to the end


def _discard_output() -> None:
    """Send what is still to be printed nowhere, or Python complains when it flushes at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def quiet_libraries() -> None:
    """Silence the load reports, progress bars and warnings of libraries; call before they are imported.

    A variable that the user has set is left alone.
    """
    for name, value in {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)

    # Whoever asks for warnings on Python's command line gets them all.
    if not sys.warnoptions:
        for library in ("accelerate", "huggingface_hub", "sklearn", "torch", "transformers"):
            warnings.filterwarnings("ignore", module=rf"{library}\b")


def describe(error: BaseException, verb: str | None = None) -> tuple[str, int]:
    """One line for a person about `error`, and the exit code of the command."""
    text = " ".join(str(error).split())
    if isinstance(error, MintError):
        return f"error: {text}", 2
    if isinstance(error, KeyboardInterrupt):
        resume = VERBS[verb].resume if verb in VERBS else ""
        return f"interrupted; {resume}" if resume else "interrupted", 130
    if _out_of_memory(error):
        reason = textwrap.shorten(text, 120, placeholder=" ...") or type(error).__name__
        cure = (
            "give fewer or shorter clips, or train with training.per_device_train_batch_size=4 or data.max_seconds=10"
        )
        return f"error: out of memory ({reason}); {cure}", 2

    if isinstance(error, OSError):
        return f"error: {_describe_os_error(error, text)}", 2
    return f"unexpected error: {type(error).__name__}: {text} (run with --debug for the traceback)", 1


def _take_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """Take `--debug` out of the arguments, before or after the verb, up to a `--`."""
    # What stands after `--` is no option, whatever it looks like.
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options, rest = arguments[:end], arguments[end:]
    return [option for option in options if option != "--debug"] + rest, "--debug" in options


def _run(verb: str | None, arguments: list[str]) -> int:
    if verb is not None and verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, n=1)
        cure = f"did you mean {close[0]!r}?" if close else "`mint --help` lists the verbs"
        raise MintError(f"there is no verb {verb!r}; {cure}")

    parser = _build_parser(verb)
    try:
        chosen = parser.parse_args(arguments)
    except SystemExit:  # after --help or --version
        return 0
    if verb is None:
        parser.print_help()
        return 0

    code = chosen.run(chosen)
    return code if isinstance(code, int) else 0


def _build_parser(verb: str | None) -> Parser:
    """Return the parser of all verbs; only the chosen one has its arguments."""
    parser = Parser(
        prog="mint",
        description="Audio-language models: Bridge-Net between a frozen audio encoder and a frozen language model.",
        epilog="`mint VERB --help` shows the arguments of one verb.",
    )
    parser.add_argument(
        "-V", "--version", action="version", version=f"mint {__version__}", help="Show the version and exit."
    )
    parser.add_argument(
        "--debug",
        action="store_true",
        help="Show tracebacks and the output of libraries. It may also stand after the verb.",
    )

    subparsers = parser.add_subparsers(title="verbs", metavar="VERB")
    for name, (module, line, _) in VERBS.items():
        if name == verb:
            importlib.import_module(module).add_parser(subparsers)
        # Of the others the line in the overview is enough, and their modules are not imported.
        else:
            subparsers.add_parser(name, help=line)
    return parser


def _out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, in Python, NumPy or torch (on the accelerator or, by its text, on the CPU)."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )


def _describe_os_error(error: OSError, text: str) -> str:
    """Return what the system refused, with the file and a cure."""
    name = repr(str(error.filename))
    if error.filename is not None:
        for kind, line in (
            (FileNotFoundError, f"no such file or folder: {name}; check the path"),
            (PermissionError, f"not permitted: {name}; change its permissions or choose another place"),
            (IsADirectoryError, f"{name} is a folder; give a file"),
            (FileExistsError, f"{name} is a file where a folder is needed; choose another path"),
            (NotADirectoryError, f"{name} needs a folder where there is a file; choose another path"),
        ):
            if isinstance(error, kind):
                return line

    if error.errno == errno.ENOSPC:
        return f"{text}; free some space or choose another place"
    return text or type(error).__name__
