"""Models of others for the frozen parts: a local folder or a name on the Hugging Face hub, read by transformers.

Weights are read from safetensors alone, and no code that comes with a model is run. What was read is told by an
identity, which names the commit on the hub or the bytes on disk: feature caches and runs are known by it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from mint.types import MintError

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
        reason = " ".join(str(error).split())
        raise MintError(
            f"cannot load {source!r} by {kind.__name__} ({reason[:300]}); give a local folder or a hub name "
            "that holds it, and log in with `hf auth login` where it is gated"
        ) from None


def load_weights_of(kind: Any, source: str, revision: str | None, **options: Any) -> Any:
    """Load a model by `load_pretrained`, from safetensors alone."""
    return load_pretrained(kind, source, revision, use_safetensors=True, **options)


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
