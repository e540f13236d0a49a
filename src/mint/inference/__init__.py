"""What a user of a trained model calls: the class `Mint`."""

from __future__ import annotations

from mint.inference.loading import LoadedRun
from mint.inference.mint import Mint
from mint.inference.questions import Answer, Method
from mint.inference.timeline import Stretch

__all__ = ["Answer", "LoadedRun", "Method", "Mint", "Stretch"]
