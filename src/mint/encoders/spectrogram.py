"""Transformers' spectrogram models as frozen audio encoders: Whisper's encoder, AST and CLAP's audio tower.

Each reads a window of fixed length (30 s, 10.24 s, 10 s), completed with silence, and has learnt to see that silence:
no attention is masked, so a clip gives the same features in any batch. Longer clips are cut into consecutive windows.
The feature mask leaves out what lies past the end of the clip. The spectrogram is that of the model's own extractor.

CLAP's extractor draws at random where a clip is longer than the window, and marks one clip of a batch at random as
longer; here windows are never longer and none is marked. It repeats short clips to fill the window, as CLAP was
trained; the mask covers the first copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mint.assets.pretrained import check_kind
from mint.encoders.frozen import FrozenEncoder
from mint.encoders.waveform import check_layer
from mint.types import MintError, NamedClasses

MIN_SAMPLES = 400
"""Samples of a frame of AST's filter bank; shorter windows are completed with silence first."""
READER = "encoder.family spectrogram"
AST = "audio-spectrogram-transformer"
PARTS = {"whisper": "encoder", "clap": "audio_model", AST: "audio_spectrogram_transformer"}
"""`model_type` -> the attribute that holds the audio encoder, in models that have more."""
UNUSED = r"decoder\.|text_model\.|text_projection\.|audio_projection\.|logit_scale_"
"""Beginnings of the names of weights that a checkpoint may lack: Whisper's decoder, and what CLAP has besides audio."""


@dataclass(frozen=True)
class TokenLayout:
    """The window that a model reads, and how its output is laid out in tokens."""

    window: int
    """Samples that the model reads."""
    step: float
    """Samples from one time step of the tokens to the next."""
    bands: int
    """Tokens of one time step."""
    width: int
    """Width D of a token."""
    blocks: int | None
    """Number of blocks whose hidden states can be chosen; None: only the last hidden state."""
    tokens: Callable[[Tensor], Tensor]
    """Turns a hidden state into tokens [N, time, bands, D]."""


class SpectrogramEncoder(FrozenEncoder):
    """Adapter of a spectrogram model; implements `mint.types.AudioEncoder`.

    Args:
        model: transformers' `WhisperModel`, `ASTModel` or `ClapModel`; of the first and last the audio part is kept.
        extractor: the feature extractor of its checkpoint.
        identity: name and revision of its weights.
        layer: as in `WaveformEncoder`; CLAP has only the last.
        windows_at_once: number of windows in one pass, which bounds its memory.

    Raises:
        MintError: the model is of another kind, or does not have this layer.
    """

    def __init__(
        self, model: Any, extractor: Any, identity: str, layer: int | None = None, windows_at_once: int = 32
    ) -> None:
        super().__init__()
        kind = model.config.model_type
        check_kind(model.config, MODELS, READER)

        self.model = audio_part(model)
        self.head: Any = getattr(model, "classifier", None) if kind == AST else None
        self.extractor = extractor
        self.layout = LAYOUTS[kind](self.model.config, extractor)
        if layer is not None and self.layout.blocks is None:
            raise MintError(f"encoder.layer is {layer}, but only the last layer of {kind} is read; leave it out")
        check_layer(layer, self.layout.blocks or 0)

        self.layer = layer
        self.windows_at_once = windows_at_once
        self.sample_rate: int = extractor.sampling_rate
        self.width = self.layout.width
        self.bands = self.layout.bands
        self.step_seconds = self.layout.step / self.sample_rate
        self.identity = f"{kind} {identity}; {'last layer' if layer is None else f'layer {layer}'}"
        self.requires_grad_(False)
        self.train(False)

    @property
    def named_classes(self) -> NamedClasses | None:
        """The classifier of an AST that was trained to name sounds; None for other models and without its head.

        AST's head reads its two class tokens, which are no part of the features: the mean of a window's features takes
        their place here. The head's own normalisation is folded into the weights, as the features are normalised
        already. Both make it an approximation of what AST itself would say.
        """
        if self.head is None or self.layer is not None:
            return None
        norm, dense, config = self.head.layernorm, self.head.dense, self.model.config
        steps = (config.max_length - config.patch_size) // config.time_stride + 1
        id2label = config.id2label
        return NamedClasses(
            names=tuple(id2label[number] for number in range(len(id2label))),
            weight=dense.weight * norm.weight,
            bias=dense.bias + dense.weight @ norm.bias,
            tokens=steps * self.bands,
            samples=self.layout.window,
            least=None,
        )

    @torch.no_grad()
    def encode(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a padded batch.

        Args:
            waveform: [B, S] float32 at the model's rate; what lies beyond the lengths is not read.
            lengths: [B] int64, in samples.

        Returns:
            features [B, T, D], time-major where the model has several frequency bands, and mask [B, T]; zeros under it.
        """
        # Consecutive windows of each clip; a clip without samples has one, all silence.
        clips = [clip[:length].cpu() for clip, length in zip(waveform, lengths.tolist(), strict=True)]
        owners: list[int] = []
        windows: list[Tensor] = []
        for owner, clip in enumerate(clips):
            for start in range(0, max(len(clip), 1), self.layout.window):
                owners.append(owner)
                windows.append(clip[start : start + self.layout.window])

        tokens: list[Tensor] = []  # [time, bands, D] of each window
        for first in range(0, len(windows), self.windows_at_once):
            tokens.extend(self._encode(windows[first : first + self.windows_at_once], waveform.device))

        # Time steps that begin past the end of the clip are left out; the first always counts.
        rows: list[list[Tensor]] = [[] for _ in clips]
        for owner, window, encoded in zip(owners, windows, tokens, strict=True):
            num_steps = max(1, min(len(encoded), -int(-len(window) // self.layout.step)))  # rounded up
            rows[owner].append(encoded[:num_steps].flatten(0, 1))  # [steps x bands, D]

        features = nn.utils.rnn.pad_sequence([torch.cat(row) for row in rows], batch_first=True)  # [B, T, D]
        counts = torch.tensor([sum(map(len, row)) for row in rows], device=features.device)  # [B]
        return features, torch.arange(features.shape[1], device=features.device) < counts[:, None]

    def _encode(self, windows: Sequence[Tensor], device: torch.device) -> Tensor:
        """Return the tokens [N, time, bands, D] of windows of samples [S]."""
        arrays = [nn.functional.pad(one, (0, max(0, MIN_SAMPLES - len(one)))).numpy() for one in windows]
        inputs = self.extractor(arrays, sampling_rate=self.sample_rate, return_tensors="pt")

        # The flags of CLAP's clips that are longer than a window: none is.
        is_longer = inputs.pop("is_longer", None)
        weight = next(self.model.parameters())
        moved = {name: value.to(device, weight.dtype) for name, value in inputs.items()}
        if is_longer is not None:
            moved["is_longer"] = torch.zeros_like(is_longer).to(device)

        output = self.model(**moved, output_hidden_states=self.layer is not None)
        hidden = output.last_hidden_state if self.layer is None else output.hidden_states[self.layer]
        return self.layout.tokens(hidden).float()


def audio_part(model: Any) -> Any:
    """Return the audio encoder of a model that may have other parts."""
    return getattr(model, PARTS.get(model.config.model_type, ""), model)


def _whisper(config: Any, extractor: Any) -> TokenLayout:
    """Whisper's encoder: one token for each time step, [N, time, D]."""
    steps = config.max_source_positions
    return TokenLayout(
        window=extractor.n_samples,
        step=extractor.n_samples / steps,
        bands=1,
        width=config.d_model,
        blocks=config.encoder_layers,
        tokens=lambda hidden: hidden.unsqueeze(2),
    )


def _ast(config: Any, extractor: Any) -> TokenLayout:
    """AST: patches in the order of the bands, after two tokens of the whole window, [N, 2 + bands x time, D]."""
    bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    hop = extractor.sampling_rate // 100
    return TokenLayout(
        window=config.max_length * hop,
        step=config.time_stride * hop,
        bands=bands,
        width=config.hidden_size,
        blocks=config.num_hidden_layers,
        tokens=lambda hidden: hidden[:, 2:].unflatten(1, (bands, -1)).transpose(1, 2),  # without [CLS], distillation
    )


def _clap(config: Any, extractor: Any) -> TokenLayout:
    """CLAP's audio tower: a map [N, D, bands, time], each of whose stages but the last halves both sides."""
    steps = config.spec_size**2 // config.num_mel_bins // config.patch_stride[1] // 2 ** (len(config.depths) - 1)
    return TokenLayout(
        window=extractor.nb_max_samples,
        step=extractor.nb_max_samples / steps,
        bands=config.num_mel_bins // config.patch_stride[0] // 2 ** (len(config.depths) - 1),
        width=config.hidden_size,
        blocks=None,
        tokens=lambda hidden: hidden.permute(0, 3, 2, 1),
    )


LAYOUTS: dict[str, Callable[[Any, Any], TokenLayout]] = {
    "whisper": _whisper,
    AST: _ast,
    "clap": _clap,
}
MODELS = tuple(LAYOUTS)
"""Values of `model_type` of the configurations that the adapter knows."""
