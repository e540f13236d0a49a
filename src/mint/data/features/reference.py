"""Reference clips: a few training clips that a run keeps, to tell what a label gets from any sound at all.

A language model finds some labels likelier than others whatever it hears: short ones, common words. What it gives a
label on average over clips that have nothing to do with the question is this bias, which the scoring `calibrated` takes
out (`mint.predict`): batch calibration (Zhou et al., 2024), on clips of the training in place of those that are
measured, so that a single file can be scored too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mint.files import writing

REFERENCE = "reference.safetensors"
"""The file in the folder of a finished stage 2."""


@dataclass(frozen=True)
class ReferenceClips:
    """The features of some clips, and the instruction that each was trained with."""

    prompts: Sequence[str]
    """[N]."""
    features: Sequence[Tensor]
    """[N] of [T, D]."""

    def asked(self, prompt: str) -> list[Tensor]:
        """Return the features of the clips with an instruction; where there are none, as many of all, evenly."""
        # Labels of another task would be unlikely for reasons of their own.
        alike = [clip for clip, of_clip in zip(self.features, self.prompts, strict=True) if of_clip == prompt]
        return alike or list(self.features[:: len(set(self.prompts))])

    def save(self, folder: Path) -> None:
        """Write them into the folder of a stage."""
        # Padded numbers, so that sorted names are in the order of the prompts.
        tensors = {f"{number:05}": clip.contiguous() for number, clip in enumerate(self.features)}
        with writing(folder / REFERENCE) as file:
            save_file(tensors, file.name, metadata={"prompts": json.dumps(list(self.prompts))})

    @classmethod
    def load(cls, folder: Path) -> ReferenceClips | None:
        """Read them from the folder of a stage; None where it has none."""
        if not (folder / REFERENCE).is_file():
            return None
        with safe_open(folder / REFERENCE, framework="pt") as file:
            prompts = json.loads(file.metadata()["prompts"])
            return cls(prompts, [file.get_tensor(name) for name in sorted(file.keys())])
