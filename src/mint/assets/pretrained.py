"""Models of others for the frozen parts: a local folder or a name on the Hugging Face hub, read by transformers.

Weights are read from safetensors alone, and no code that comes with a model is run. What was read is told by an
identity, which names the commit on the hub or the bytes on disk: feature caches and runs are known by it.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from mint.assets.store import cache_folder
from mint.types import MintError

if TYPE_CHECKING:
    from torch import Tensor

READ_AT_ONCE = 1 << 24
UNSURE = 2_000_000_000
"""Nanoseconds after its last change in which a file may change again unseen: clocks of file systems are coarse."""


def load_pretrained(kind: Any, source: str, revision: str | None, **options: Any) -> Any:
    """Load a model, tokenizer, feature extractor or configuration.

    Args:
        kind: one of transformers' classes with `from_pretrained`, such as `AutoModel`.
        source: a local folder or a hub name.
        revision: commit, tag or branch of a hub name; None: its main branch.
        options: of `from_pretrained`.

    Raises:
        MintError: there is nothing of that kind, or it cannot be fetched.
    """
    try:
        return kind.from_pretrained(source, revision=revision, trust_remote_code=False, **options)
    except (OSError, ValueError, ImportError) as error:
        raise _cannot_load(kind.__name__, source, error) from None


def check_kind(config: Any, kinds: Iterable[str], reader: str) -> None:
    """Refuse a model whose family its reader does not know.

    Args:
        config: of transformers.
        kinds: `model_type` of those that it knows.
        reader: the key of the recipe, and its value.

    Raises:
        MintError: it is none of them.
    """
    if config.model_type not in kinds:
        raise MintError(f"{reader} cannot read {config.model_type!r}; it reads {', '.join(kinds)}")


def load_weights_of(kind: Any, source: str, revision: str | None, unused: str = "", **options: Any) -> Any:
    """The model of `load_with_rest`, whose arguments and errors these are."""
    return load_with_rest(kind, source, revision, unused, **options)[0]


def load_with_rest(
    kind: Any, source: str, revision: str | None, unused: str = "", **options: Any
) -> tuple[Any, tuple[str, ...]]:
    """Load a model as `load_pretrained` does, from safetensors alone and with all its weights.

    Args:
        kind: see there.
        source: see there.
        revision: see there.
        unused: pattern of the beginnings of names that the caller makes no use of: these weights may be missing.
        options: of `from_pretrained`.

    Returns:
        The model, and the names of the checkpoint that it has no place for.

    Raises:
        MintError: it cannot be loaded, is damaged, or lacks weights, which transformers would draw at random.
    """
    options |= {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        model, found = kind.from_pretrained(source, revision=revision, trust_remote_code=False, **options)
    except SafetensorError as error:
        raise _damaged(source, error) from None
    except (OSError, ValueError, ImportError) as error:
        if re.search(r"no file named model\.safetensors|cannot be loaded with `safetensors`", str(error)):
            raise _no_safetensors(kind.__name__, source) from None
        raise _cannot_load(kind.__name__, source, error) from None
    _refuse_gaps(model, source, found, re.compile(unused or "(?!)"))
    return model, tuple(sorted(found["unexpected_keys"]))


def load_tensors(source: str, revision: str | None, names: str) -> dict[str, Tensor]:
    """Some tensors of a checkpoint, in float32; of a large one only the files that hold them are fetched and read.

    Args:
        source: a local folder or a hub name.
        revision: as in `load_pretrained`.
        names: pattern of the beginnings of their names.

    Raises:
        MintError: it cannot be loaded, or is damaged.
    """
    paths = [_file_of(source, "model.safetensors", revision)]
    if paths[0] is None and (index := _file_of(source, "model.safetensors.index.json", revision)) is not None:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {file for name, file in places.items() if re.match(names, name)}
        paths = [_file_of(source, file, revision) for file in sorted(files)]
    tensors: dict[str, Tensor] = {}
    for path in paths:
        if path is None:
            raise _no_safetensors("AutoModel", source)
        try:
            with safe_open(path, framework="pt") as weights:
                wanted = [name for name in weights.keys() if re.match(names, name)]  # noqa: SIM118  # no dictionary
                tensors |= {name: weights.get_tensor(name).float() for name in wanted}
        except SafetensorError as error:
            raise _damaged(source, error) from None
    return tensors


def _file_of(source: str, name: str, revision: str | None) -> Path | None:
    """A file of a folder or hub name; None: it has none of that name."""
    from transformers.utils.hub import cached_file

    try:
        found = cached_file(source, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    except (OSError, ValueError) as error:
        raise _cannot_load("transformers", source, error) from None
    return None if found is None else Path(found)


def _no_safetensors(kind: str, source: str) -> MintError:
    return MintError(
        f"{source!r} has no model.safetensors, and only safetensors are read; convert it by transformers' "
        f"{kind}.from_pretrained({source!r}).save_pretrained(FOLDER), and copy its other files beside"
    )


def _damaged(source: str, error: Exception) -> MintError:
    return MintError(f"the weights of {source!r} are damaged ({error}); copy them or download them again")


def _cannot_load(kind: str, source: str, error: Exception) -> MintError:
    reason = " ".join(str(error).split())
    return MintError(
        f"cannot load {source!r} by {kind} ({reason[:300]}); give a local folder or a hub name "
        "that holds it, and log in with `hf auth login` where it is gated"
    )


def _refuse_gaps(model: Any, source: str, found: dict[str, Any], unused: re.Pattern[str]) -> None:
    """Refuse weights that the checkpoint lacks or has in another size, by what transformers says it found."""
    missing = sorted(name for name in found["missing_keys"] if not unused.match(name))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MintError(
            f"the weights of {source!r} lack {missing[0]!r}{more} that {type(model).__name__} needs; copy them or "
            "download them again, or give a checkpoint of that model"
        )
    for name, has, wants in sorted(found["mismatched_keys"]):
        if not unused.match(name):
            raise MintError(
                f"the weights of {source!r} have {name!r} in the shape {tuple(has)}, not {tuple(wants)} as its "
                "config.json says; copy or download both again"
            )


def identify(source: str, revision: str | None = None) -> str:
    """What the weights of a model are: a hub name and its commit, or a digest of a folder's."""
    if Path(source).is_dir():
        return f"sha256:{_digest(Path(source).resolve())}"
    return f"{source}@{commit_of(source, revision) or revision or 'main'}"


def commit_of(source: str, revision: str | None) -> str | None:
    """The commit that a revision of a hub name stands for now; None where the hub cannot be asked."""
    from transformers.utils.hub import resolve_revision

    return getattr(resolve_revision(source, revision), "resolved", None)


def pin(weights: str) -> str | None:
    """The commit of a hub name's main branch, under which it can be loaded again; None: there is none.

    Where the branch has no safetensors, the hub converts its weights for who asks for the branch, and for no commit.
    """
    from transformers.utils.hub import has_file

    if weights.startswith("asset:") or Path(weights).is_dir():
        return None
    commit, names = commit_of(weights, None), ("model.safetensors", "model.safetensors.index.json")
    with suppress(OSError):
        if commit is not None and any(has_file(weights, name, revision=commit) for name in names):
            return commit
    return None


def _digest(folder: Path) -> str:
    """SHA-256 of a folder's weights, 16 digits; remembered in the cache folder while no file of them is touched."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.gguf")])
    states = [_state(path) for path in files]
    kept = cache_folder() / "weights" / f"{hashlib.sha256(str(folder).encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(kept.read_text(encoding="utf-8"))
        if record["states"] == states:
            return str(record["digest"])
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while part := file.read(READ_AT_ONCE):
                digest.update(part)
    found = digest.hexdigest()[:16]
    touched = max((max(state[2:]) for state in states), default=0)
    if states == [_state(path) for path in files] and touched < time.time_ns() - UNSURE:
        with suppress(OSError):  # it only saves time
            kept.parent.mkdir(parents=True, exist_ok=True)
            half_written = kept.with_name(f"{kept.name}.{uuid.uuid4().hex}.tmp")
            half_written.write_text(json.dumps({"states": states, "digest": found}), encoding="utf-8")
            half_written.replace(kept)
    return found


def _state(path: Path) -> list[Any]:
    """Name, size, and times of modification and of change, the last of which no program sets at will."""
    state = path.stat()
    return [path.name, state.st_size, state.st_mtime_ns, state.st_ctime_ns]
