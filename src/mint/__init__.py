"""MINT: audio-language models from a frozen audio encoder, Bridge-Net and a frozen language model.

>>> from mint import Mint
>>> mint = Mint.from_pretrained("runs/quickstart")  # doctest: +SKIP
>>> mint.caption("rain.wav")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mint.inference import Mint

__version__ = "0.1.0"
__all__ = ["Mint", "__version__"]


def __getattr__(name: str) -> Any:
    """Import `Mint` on first use, so that `import mint` stays free of torch."""
    if name == "Mint":
        from mint.inference import Mint

        return Mint
    raise AttributeError(f"module 'mint' has no attribute {name!r}")
