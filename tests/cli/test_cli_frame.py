"""The command-line frame: light help, one-line errors and exit codes, debug, pipes."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch

import mint
from mint.cli import VERBS, Verb, main, quiet_libraries
from mint.types import MintError
from tiny_runs import train_both

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

HEAVY = {"torch", "transformers", "accelerate", "numpy", "sklearn", "scipy", "matplotlib", "soundfile", "soxr", "gguf"}


def run_python(
    code: str, *arguments: str, stdout: int = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Namespace], Any]], None]:
    """Set what the verb `probe` does; the verb takes any number of words."""

    def install(run: Callable[[Namespace], Any]) -> None:
        def add_parser(subparsers: Any) -> None:
            parser = subparsers.add_parser("probe")
            parser.add_argument("words", nargs="*")
            parser.set_defaults(run=run)

        module = ModuleType("mint_probe_verb")
        module.add_parser = add_parser  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "mint_probe_verb", module)
        monkeypatch.setitem(VERBS, "probe", Verb("mint_probe_verb", "for the tests", "the same command goes on"))

    return install


def raising(error: BaseException) -> Callable[[Namespace], Any]:
    def run(_: Namespace) -> None:
        raise error

    return run


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], *([name, "--help"] for name in VERBS)])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from mint.cli import main; code = main(sys.argv[1:]);"
        f"heavy = {HEAVY!r} & set(sys.modules); sys.exit(f'imported {{heavy}}' if heavy else code)"
    )
    result = run_python(code, *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("mint 0" if "--version" in arguments else "usage: mint")


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_its_module_and_its_line_in_the_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.util.find_spec(VERBS[name].module) is not None
    assert main([]) == 0
    assert f"    {name} " in capsys.readouterr().out


def test_only_the_chosen_verb_is_imported() -> None:
    result = run_python(
        "import sys; from mint.cli import main; main(['caption', '--help']);"
        "print(sorted(name for name in sys.modules if name.startswith('mint.cli.')))"
    )
    names = ["_clips", "_decoding", "_each", "_parser", "_timeline", "caption"]
    assert result.stdout.splitlines()[-1] == str([f"mint.cli.{name}" for name in names])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mint {mint.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nonsense"], "there is no verb 'nonsense'; `mint --help` lists the verbs"),
        (["--nonsense"], "unrecognized arguments: --nonsense; `mint --help` shows the arguments"),
        (["caption"], "the following arguments are required: RUN, AUDIO; `mint caption --help` shows the arguments"),
        (["search"], "the following arguments are required: RUN, QUERY AUDIO; `mint search --help` shows"),
        (["search", "run", "query"], "give a description and audio files or folders; or an index in the place of"),
        (["index", "run", "clips"], "the following arguments are required: --output; `mint index --help` shows"),
        (["train"], "the following arguments are required: RECIPE; `mint train --help` shows the arguments"),
        (["data", "validat"], "argument ACTION: invalid choice: 'validat' (choose from "),
        (["data", "shard", "a", "b"], "the following arguments are required: --output; `mint data shard --help` shows"),
        (
            ["caption", "run", "a.wav", "--beam", "two\nthree"],
            "argument --beams: 'two\\nthree' is not a whole number of",
        ),
        (
            ["evaluate", "run", "--task", "a", "b"],
            "unrecognized arguments: b (give --task once for each value); `mint e",
        ),
        (["evaluate", "run", "--task", "a", "-b"], "unrecognized arguments: -b; `mint evaluate --help` shows"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"mint: error: {line}")
    assert err.count("\n") == 1


def test_overrides_may_stand_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last positional argument of any verb, if it may be repeated, is taken after options too."""
    seen: list[Any] = []

    def load(*arguments: Any) -> None:
        seen.append(arguments)
        raise MintError("seen")

    monkeypatch.setattr("mint.config.load_recipe", load)
    main(["train", "quickstart/stage1", "a=1", "--output", "x", "b=2", "--resume", "c=3"])
    main(["cache", "--verify", "quickstart/stage1", "a=1"])
    assert seen == [("quickstart/stage1", ["a=1", "b=2", "c=3"]), ("quickstart/stage1", ["a=1"])]


def test_runs_as_a_module() -> None:
    result = subprocess.run([sys.executable, "-m", "mint", "capton"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "mint: error: there is no verb 'capton'; did you mean 'caption'?\n"


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (2, 2)])
def test_exit_code_is_what_the_verb_returns(returned: int | None, code: int, verb: Any) -> None:
    verb(lambda _: returned)
    assert main(["probe"]) == code


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (MintError("rate is 0;\n  give one above 0"), 2, "error: rate is 0; give one above 0"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.wav"), 2, "error: no such file or folder: 'a.wav'; check"),
        (PermissionError(errno.EACCES, "Permission denied", "a.wav"), 2, "error: not permitted: 'a.wav'; change its"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "runs"), 2, "error: 'runs' is a folder; give a file"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), 2, "error: 'a/b' needs a folder where there is"),
        (FileExistsError(errno.EEXIST, "File exists", "a.wav"), 2, "error: 'a.wav' is a file where a folder is needed"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: [Errno 28] No space left on device; free some"),
        (OSError("x is not a hub\nname"), 2, "error: x is not a hub name"),
        (MemoryError(), 2, "error: out of memory (MemoryError); give fewer or shorter clips"),
        (torch.OutOfMemoryError("GPU full. " * 50), 2, "error: out of memory (GPU full. GPU full. "),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on"),
        (KeyError("queries"), 1, "unexpected error: KeyError: 'queries' (run with --debug for the traceback)"),
        (RuntimeError("a\nb"), 1, "unexpected error: RuntimeError: a b (run with --debug for the traceback)"),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_an_error_is_one_line(
    error: BaseException, code: int, line: str, debug: bool, verb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    verb(raising(error))
    assert main(["probe", "--debug"] if debug else ["probe"]) == code
    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith(f"mint: {line}")
    assert err[0].startswith("Traceback") if debug else len(err) == 1


def test_torch_out_of_memory_on_the_cpu_is_recognised(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    verb(lambda _: torch.empty(10**15))
    assert main(["probe"]) == 2
    assert capsys.readouterr().err.startswith("mint: error: out of memory (")


def test_interruption_of_a_verb_that_keeps_nothing_promises_nothing(
    capsys: pytest.CaptureFixture[str], verb: Any
) -> None:
    verb(raising(KeyboardInterrupt()))
    VERBS["probe"] = VERBS["probe"]._replace(resume="")
    assert main(["probe"]) == 130
    assert capsys.readouterr().err == "mint: interrupted\n"


@pytest.mark.parametrize(
    ("arguments", "traceback", "words"),
    [
        (["--debug", "probe", "a"], True, ["a"]),
        (["probe", "a", "--debug"], True, ["a"]),
        (["probe", "--", "--debug"], False, ["--debug"]),
    ],
)
def test_debug_before_or_after_the_verb(
    arguments: list[str], traceback: bool, words: list[str], verb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(chosen: Namespace) -> None:
        raise MintError(" ".join(chosen.words))

    verb(run)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.endswith(f"mint: error: {' '.join(words)}\n")
    assert ("Traceback" in err) is traceback


def test_libraries_are_quiet_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    quiet_libraries()
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"


def test_a_library_warning_does_not_reach_the_user_and_another_does() -> None:
    code = (
        "import warnings; from mint.cli import quiet_libraries; quiet_libraries();"
        "[warnings.warn_explicit('from ' + name, UserWarning, 'file', 1, module=name)"
        " for name in ('torch.nn', 'transformers', 'torchbearer', 'mint')]"
    )
    shown = run_python(code, PYTHONWARNINGS="").stderr
    assert "from mint" in shown
    assert "from torchbearer" in shown
    assert "from torch.nn" not in shown
    assert "from transformers" not in shown


@pytest.mark.parametrize("lines", [1, 10_000])
def test_a_reader_that_goes_away_is_no_error(lines: int) -> None:
    """`mint ... | head -1`: noticed while printing, or only when the buffer is flushed at the end."""
    code = (
        "import sys, types; from mint.cli import VERBS, Verb, main; module = types.ModuleType('chatty');"
        f"run = lambda _: [print('x' * 10) for _ in range({lines})] and None;"
        "module.add_parser = lambda s: s.add_parser('chatty').set_defaults(run=run);"
        "sys.modules['chatty'] = module; VERBS['chatty'] = Verb('chatty', ''); sys.exit(main(['chatty']))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    result = run_python(code, stdout=writer, PYTHONUNBUFFERED="")
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, "")


def test_a_file_name_that_is_not_unicode_can_be_printed() -> None:
    code = (
        "import sys, types; from mint.cli import VERBS, Verb, main; module = types.ModuleType('odd');"
        "module.add_parser = lambda s: s.add_parser('odd').set_defaults(run=lambda _: print('caf\\udce9.wav'));"
        "sys.modules['odd'] = module; VERBS['odd'] = Verb('odd', ''); sys.exit(main(['odd']))"
    )
    result = run_python(code, PYTHONIOENCODING="utf-8")
    assert (result.returncode, result.stdout, result.stderr) == (0, "caf\\udce9.wav\n", "")


PROBE = (
    "import sys, types; from mint.cli import VERBS, Verb, main; module = types.ModuleType('probe');"
    "module.add_parser = lambda s: s.add_parser('probe').set_defaults(run=run);"
    "sys.modules['probe'] = module; VERBS['probe'] = Verb('probe', '');"
)
"""A verb of its own for a fresh interpreter; it runs `run`."""


@pytest.mark.parametrize("swallowed", [ImportError("Could not import module 'LlamaConfig'"), MintError("cannot load")])
def test_an_interruption_that_a_library_turned_into_an_error(
    swallowed: Exception, verb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: Namespace) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise swallowed from None

    verb(run)
    assert main(["probe"]) == 130
    assert capsys.readouterr().err == "mint: interrupted; the same command goes on\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    # What comes later is judged by itself.
    verb(raising(MintError("another")))
    assert main(["probe"]) == 2


def test_an_interruption_that_a_library_swallowed(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: Namespace) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    verb(run)
    assert main(["probe"]) == 130
    assert capsys.readouterr().err == "mint: interrupted; the same command goes on\n"


def test_an_interruption_while_a_module_is_imported(tmp_path: Path) -> None:
    """The process ends there and then: the module would swallow it, and a hundred others are to follow."""
    (tmp_path / "swallowing.py").write_text(
        "import signal\ntry:\n    signal.raise_signal(signal.SIGINT)\nexcept BaseException:\n    pass\n"
    )
    script = PROBE + "run = lambda _: print(__import__('swallowing')); sys.argv[1:] = ['probe']; sys.exit(main())"
    result = run_python(script, PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "mint: interrupted\n")


@pytest.mark.slow
def test_an_interruption_at_any_moment(tmp_path: Path) -> None:
    """From the start of Python, which ends by the signal itself, to the end of the work."""
    run = train_both(tmp_path, max_steps=2)
    clips = [str(tmp_path / "low0.wav")] * 2000
    for moment in range(20):
        process = subprocess.Popen(
            [sys.executable, "-m", "mint", "caption", str(run), *clips],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(0.2 + 0.2 * moment)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode in (130, -signal.SIGINT)
        assert said in ("", "mint: interrupted\n")


def test_interruptions_of_others_are_left_to_them(verb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under nohup, where the signal is ignored, and in a thread, which cannot set a handler."""
    handlers: list[Any] = []
    verb(lambda _: handlers.append(signal.getsignal(signal.SIGINT)))
    monkeypatch.setattr(signal, "SIGINT", signal.SIGUSR1)
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    assert main(["probe"]) == 0
    signal.signal(signal.SIGUSR1, before)
    thread = threading.Thread(target=main, args=(["probe"],))
    thread.start()
    thread.join()
    assert handlers == [signal.SIG_IGN, before]


@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX")
@pytest.mark.parametrize(
    ("closed", "code", "error"),
    [
        (">&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        (">/dev/full", 2, "mint: error: [Errno 28] No space left on device; free some space or choose another place\n"),
    ],
)
def test_output_that_leads_nowhere(closed: str, code: int, error: str, tmp_path: Path) -> None:
    if "/dev/full" in closed and not Path("/dev/full").exists():
        pytest.skip("no device that is full")
    path = tmp_path / "written.txt"
    # A file that is opened must not take the number of a closed stream, or what is printed lands in it.
    script = PROBE + (
        f"run = lambda _: (open({str(path)!r}, 'w').write('whole'), print('lost'), print('lost', file=sys.stderr))"
        f"[:0] or None; sys.exit(main(['probe']))"
    )
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(script)} {closed}"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert result.returncode == code
    assert result.stderr in (error, "lost\n" + error)
    assert path.read_text() == "whole"
