"""A finished run in memory: its encoder, and its stages, each of which is loaded when it is first needed."""

from __future__ import annotations

import reprlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from mint import hub
from mint.builders.encoder import build_encoder
from mint.builders.language import build_language
from mint.builders.stages import TrainedStage, load_stage1, load_stage2, with_its_input
from mint.config import Recipe
from mint.machine import checked_device, default_device
from mint.model.memory import align_weights
from mint.model.stage1 import Stage1
from mint.model.stage2 import Stage2
from mint.run_folder import check_frozen, find_stages, load_run_recipe
from mint.types import AudioEncoder, MintError

if TYPE_CHECKING:
    from typing import Self

Model = TypeVar("Model", Stage1, Stage2)

MODELS = threading.RLock()
"""Held while models are loaded or compute.

One lock for the whole process, as they change what belongs to it: torch's generator and default precision, and the
imports of transformers.
"""


class LoadedRun:
    """The models of a finished run on one device.

    Args:
        folders: folder of each finished stage, by stage.
        device: device of the models.

    Raises:
        MintError: the device does not exist, or the encoder here is not the one that the run was trained with.
    """

    def __init__(self, folders: dict[int, Path], device: torch.device | str = "cpu") -> None:
        self.folders = folders
        self.device = checked_device(device)
        self._recipes: dict[int, Recipe] = {n: load_run_recipe(path) for n, path in folders.items()}
        self._stage1: TrainedStage[Stage1] | None = None
        self._stage2: TrainedStage[Stage2] | None = None

        stage, folder = next(iter(folders.items()))
        with MODELS:
            self.encoder: AudioEncoder = build_encoder(self._recipes[stage].encoder, self.device)
            align_weights(self.encoder)
        check_frozen(folder, "encoder", self.encoder.identity)

    @classmethod
    def from_pretrained(cls, run_or_repo: str | Path, device: torch.device | str | None = None) -> Self:
        """Load a finished run.

        Args:
            run_or_repo: folder of a run (with `stage1` and `stage2`, or one of these itself), or its name on the hub.
            device: device of the models, such as "cuda:1"; None: the accelerator where there is one, else the CPU.

        Raises:
            MintError: no such folder, name or device, or no finished run there.
        """
        if not isinstance(run_or_repo, str | Path):
            raise MintError(f"the run is {reprlib.repr(run_or_repo)}; give the folder of a finished run")

        # A folder comes before a name on the hub, which may look the same.
        try:
            folder = Path(run_or_repo).expanduser()
            exists = folder.exists()
        except (OSError, RuntimeError) as error:  # a name that is too long; a home folder that is nobody's
            raise MintError(f"cannot read {str(run_or_repo)!r} ({error}); give the folder of a finished run") from None
        if not exists:
            folder = hub.download(str(run_or_repo))

        return cls(find_stages(folder), default_device() if device is None else device)

    def to(self, device: torch.device | str) -> Self:
        """Move to a device, such as "cuda:1"; what is not loaded yet will be loaded there.

        Raises:
            MintError: there is no such device.
        """
        device = checked_device(device)

        with MODELS:
            self.device = device
            if isinstance(self.encoder, nn.Module):
                self.encoder.to(device)
            if self._stage1 is not None:
                self._stage1.model.to(device)
            # Stage 2 is loaded again where it is needed, with its language model.
            self._stage2 = None
        return self

    def load_stage1(self) -> TrainedStage[Stage1]:
        """Return stage 1, which is loaded at the first call; MintError: the run has none."""
        with MODELS:
            if self._stage1 is None:
                folder = self._folder(1, "embeddings and similarity")
                self._stage1 = self._stage(1, load_stage1(folder))
            return self._stage1

    def load_stage2(self) -> TrainedStage[Stage2]:
        """Return stage 2 with its language model, which are loaded at the first call; MintError: the run has none."""
        with MODELS:
            if self._stage2 is None:
                folder = self._folder(2, "captions, answers and vocabulary ranking")
                language = self._recipes[2].language
                assert language is not None

                frozen = build_language(language, self.device)
                align_weights(frozen.model)  # type: ignore[attr-defined]  # every adapter holds its model
                self._stage2 = self._stage(2, load_stage2(folder, frozen))
            return self._stage2

    def _folder(self, stage: int, purpose: str) -> Path:
        """Return the folder of a stage."""
        if stage not in self.folders:
            other = next(iter(self.folders.values()))
            raise MintError(
                f"{other} is a stage {3 - stage} alone; {purpose} need stage {stage}: train it, or put its "
                f"folder beside it as {other.parent / f'stage{stage}'}"
            )
        return self.folders[stage]

    def _stage(self, number: int, model: Model) -> TrainedStage[Model]:
        """Return a loaded stage on the device, with what its input needs."""
        align_weights(model)
        return with_its_input(self.folders[number], model.to(self.device))
