"""Models of others for the frozen parts: a local folder or a name on the Hugging Face hub, read by transformers.

Weights are read from safetensors alone, and no code that comes with a model is run. An identity says what was read: it
names the commit on the hub or the bytes on disk, and feature caches and runs are known by it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from mint.assets.store import cache_folder
from mint.files import clear_abandoned, write_whole
from mint.types import MintError

if TYPE_CHECKING:
    from torch import Tensor

UNSURE = 2_000_000_000
"""Nanoseconds after its last change in which a file may change again unseen: clocks of file systems are coarse."""
_LOADING = threading.RLock()


@contextmanager
def loading() -> Iterator[None]:
    """Let one thread at a time import transformers and build models, and let Ctrl-C end the block as such.

    Neither can be done by two threads at once: while transformers is imported its module is replaced by another one,
    and while it builds a model it changes torch's default precision and leaves out the drawing of weights, for all
    threads. Everything in MINT that builds a model by transformers holds this lock; blocks may be nested.
    """
    with _LOADING, _keeping_interrupts():
        yield


@contextmanager
def _keeping_interrupts() -> Iterator[None]:
    """Leave the block by KeyboardInterrupt once Ctrl-C was pressed, even if a library inside has hidden it.

    Imports of large libraries do: an interrupt while Python makes a class may leave as RuntimeError, and transformers
    takes that for a module that cannot be imported.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # no signal arrives here, or somebody else, perhaps a block around this one, sees to it
        return

    # Noted at the moment of the signal: by the time an exception arrives, a library may have changed its type.
    is_interrupted = False

    def note(number: int, frame: Any) -> None:
        nonlocal is_interrupted
        is_interrupted = True
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    except Exception as error:
        if is_interrupted:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if is_interrupted:
        raise KeyboardInterrupt


def auto_class(name: str) -> Any:
    """Return a class of transformers by its name, such as `AutoModel`."""
    with loading():
        return getattr(importlib.import_module("transformers"), name)


@loading()
def load_pretrained(kind: str, source: str, revision: str | None, **options: Any) -> Any:
    """Load a model, tokenizer, feature extractor or configuration.

    Args:
        kind: name of a class of transformers that has `from_pretrained`, such as `AutoModel`.
        source: a local folder or a hub name.
        revision: commit, tag or branch of a hub name; None: its main branch.
        options: further arguments of `from_pretrained`.

    Raises:
        MintError: there is nothing of that kind, or it cannot be fetched.
    """
    try:
        return auto_class(kind).from_pretrained(source, revision=revision, trust_remote_code=False, **options)
    except (OSError, ValueError, ImportError) as error:
        raise _cannot_load(kind, source, error) from None


def check_kind(config: Any, kinds: Iterable[str], reader: str) -> None:
    """Refuse a model whose family its reader does not know.

    Args:
        config: the model's configuration, of transformers.
        kinds: the values of `model_type` that the reader knows.
        reader: the key of the recipe, and its value.

    Raises:
        MintError: the family is none of them.
    """
    if config.model_type not in kinds:
        raise MintError(f"{reader} cannot read {config.model_type!r}; it reads {', '.join(kinds)}")


def load_weights_of(kind: str, source: str, revision: str | None, unused: str = "", **options: Any) -> Any:
    """Return the model of `load_with_rest`, whose arguments and errors these are."""
    return load_with_rest(kind, source, revision, unused, **options)[0]


@loading()
def load_with_rest(
    kind: str, source: str, revision: str | None, unused: str = "", **options: Any
) -> tuple[Any, tuple[str, ...]]:
    """Load a model as `load_pretrained` does, from safetensors alone and with all its weights.

    Args:
        kind: see there.
        source: see there.
        revision: see there.
        unused: pattern for the beginnings of names of weights that the caller does not use; these may be missing.
        options: further arguments of `from_pretrained`.

    Returns:
        The model, and the names in the checkpoint that it has no place for.

    Raises:
        MintError: it cannot be loaded, is damaged, or lacks weights, which transformers would draw at random.
    """
    # transformers reports what it did not find, or found in another size, instead of raising: the errors are ours.
    options |= {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
    loader = auto_class(kind)
    try:
        with _without_bar(source):
            model, info = loader.from_pretrained(source, revision=revision, trust_remote_code=False, **options)
    except SafetensorError as error:
        raise _damaged(source, error) from None
    except (OSError, ValueError, ImportError) as error:
        if re.search(r"no file named model\.safetensors|cannot be loaded with `safetensors`", str(error)):
            raise _no_safetensors(kind, source) from None
        raise _cannot_load(kind, source, error) from None

    # "(?!)" matches nothing: all weights are used.
    _refuse_gaps(model, source, info, re.compile(unused or "(?!)"))
    return model, tuple(sorted(info["unexpected_keys"]))


@contextmanager
def _without_bar(source: str) -> Iterator[None]:
    """Show no bar of transformers while the weights of a local folder are loaded, which takes moments.

    It would stand among the answers of a command. Weights that are first downloaded keep their bars.
    """
    logging: Any = importlib.import_module("transformers.utils.logging")  # its functions have no types
    is_hidden = Path(source).is_dir() and logging.is_progress_bar_enabled()
    if is_hidden:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if is_hidden:
            logging.enable_progress_bar()


@loading()
def load_tensors(source: str, revision: str | None, names: str) -> dict[str, Tensor]:
    """Load some tensors of a checkpoint in float32; of a large one only the files that hold them are fetched and read.

    Args:
        source: a local folder or a hub name.
        revision: as in `load_pretrained`.
        names: pattern for the beginnings of their names.

    Raises:
        MintError: the checkpoint cannot be loaded, or is damaged.
    """
    paths = [_file_of(source, "model.safetensors", revision)]
    if paths[0] is None:
        # A checkpoint in several files has an index, which says where each tensor is.
        index = _file_of(source, "model.safetensors.index.json", revision)
        if index is not None:
            file_of_tensor = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            files = {file for name, file in file_of_tensor.items() if re.match(names, name)}
            paths = [_file_of(source, file, revision) for file in sorted(files)]

    tensors: dict[str, Tensor] = {}
    for path in paths:
        if path is None:
            raise _no_safetensors("AutoModel", source)
        try:
            with safe_open(path, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118  # it is no dictionary
                    if re.match(names, name):
                        tensors[name] = weights.get_tensor(name).float()
        except SafetensorError as error:
            raise _damaged(source, error) from None
    return tensors


def _file_of(source: str, name: str, revision: str | None) -> Path | None:
    """Return a file of a folder or hub name; None if it has none of that name."""
    from transformers.utils.hub import cached_file

    try:
        path = cached_file(source, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    except (OSError, ValueError) as error:
        raise _cannot_load("transformers", source, error) from None
    return None if path is None else Path(path)


def _no_safetensors(kind: str, source: str) -> MintError:
    return MintError(
        f"{source!r} has no model.safetensors, and only safetensors are read; convert it by transformers' "
        f"{kind}.from_pretrained({source!r}).save_pretrained(FOLDER), and copy its other files beside"
    )


def _damaged(source: str, error: Exception) -> MintError:
    return MintError(f"the weights of {source!r} are damaged ({error}); copy them or download them again")


def _cannot_load(kind: str, source: str, error: Exception) -> MintError:
    # transformers explains at length, over several lines.
    reason = " ".join(str(error).split())
    return MintError(
        f"cannot load {source!r} by {kind} ({reason[:300]}); give a local folder or a hub name "
        "that holds it, and log in with `hf auth login` where it is gated"
    )


def _refuse_gaps(model: Any, source: str, info: dict[str, Any], unused: re.Pattern[str]) -> None:
    """Refuse weights that the checkpoint lacks or has in another size, as transformers reports them in `info`."""
    # transformers would go on with weights that it draws at random.
    missing = sorted(name for name in info["missing_keys"] if not unused.match(name))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MintError(
            f"the weights of {source!r} lack {missing[0]!r}{more} that {type(model).__name__} needs; copy them or "
            "download them again, or give a checkpoint of that model"
        )

    for name, actual, expected in sorted(info["mismatched_keys"]):
        if not unused.match(name):
            raise MintError(
                f"the weights of {source!r} have {name!r} in the shape {tuple(actual)}, not {tuple(expected)} as its "
                "config.json says; copy or download both again"
            )


def identify(source: str, revision: str | None = None) -> str:
    """Return what the weights of a model are: a hub name and its commit, or a digest of a folder's weights."""
    if Path(source).is_dir():
        return f"sha256:{_digest(Path(source).resolve())}"
    return f"{source}@{commit_of(source, revision) or revision or 'main'}"


@loading()
def commit_of(source: str, revision: str | None) -> str | None:
    """Return the commit that a revision of a hub name stands for now; None where the hub cannot be asked."""
    from transformers.utils.hub import resolve_revision

    return getattr(resolve_revision(source, revision), "resolved", None)


@loading()
def pin(weights: str) -> str | None:
    """Return the commit of a hub name's main branch, under which it can be loaded again; None if there is none.

    Where the branch has no safetensors, the hub converts its weights for those who ask for the branch, but for no
    commit.
    """
    from transformers.utils.hub import has_file

    if weights.startswith("asset:") or Path(weights).is_dir():
        return None
    # In one file, or in several with an index.
    commit, names = commit_of(weights, None), ("model.safetensors", "model.safetensors.index.json")
    with suppress(OSError):
        # Only safetensors are read.
        if commit is not None and any(has_file(weights, name, revision=commit) for name in names):
            return commit
    return None


def _digest(folder: Path) -> str:
    """Return the SHA-256 of a folder's weights, 16 digits; it is remembered while none of its files is touched."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.gguf")])
    states = [_state(path) for path in files]
    # Hashing a model of gigabytes takes longer than loading it, and every command asks for its identity.
    record_path = cache_folder() / "weights" / f"{hashlib.sha256(str(folder).encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(record_path.read_text(encoding="utf-8"))
        if record["states"] == states:
            return str(record["digest"])

    state = hashlib.sha256()
    for path in files:
        state.update(path.name.encode())
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: state)  # it goes on from the files before
    digest = state.hexdigest()[:16]

    # As in `mint.data.features.file_digests`: a file that was touched just now may change again unseen.
    touched = max((max(times) for _, _, *times in states), default=0)
    is_settled = states == [_state(path) for path in files] and touched < time.time_ns() - UNSURE
    if is_settled:
        with suppress(OSError):  # the record only saves time
            record_path.parent.mkdir(parents=True, exist_ok=True)
            clear_abandoned(record_path.parent)
            write_whole(record_path, json.dumps({"states": states, "digest": digest}))
    return digest


def _state(path: Path) -> list[Any]:
    """Return name, size, and times of modification and of change; no program sets the last one at will."""
    state = path.stat()
    return [path.name, state.st_size, state.st_mtime_ns, state.st_ctime_ns]
