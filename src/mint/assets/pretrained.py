"""Models of others for the frozen parts: a local folder or a name on the Hugging Face hub, read by transformers.

Weights are read from safetensors alone, and no code that comes with a model is run. What was read is told by an
identity, which names the commit on the hub or the bytes on disk: feature caches and runs are known by it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from mint.types import MintError

if TYPE_CHECKING:
    from torch import Tensor

READ_AT_ONCE = 1 << 24


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


def identify(source: str, model: Any, revision: str | None = None, content: bool = False) -> str:
    """What a loaded model is: its hub name and commit, or its folder.

    Args:
        source: where it was loaded from.
        model: with the configuration that transformers gave it.
        revision: what was asked for.
        content: of a local folder take a digest of the weights instead of its name, which reads all of them.
    """
    folder = Path(source)
    if not folder.is_dir():
        return f"{source}@{getattr(model.config, '_commit_hash', None) or revision or 'main'}"
    return f"sha256:{_digest(folder)}" if content else f"{source}@local"


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while part := file.read(READ_AT_ONCE):
                digest.update(part)
    return digest.hexdigest()[:16]
