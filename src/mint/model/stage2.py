"""Stage 2: audio-to-language generative learning with instruction tuning (paper, section 2.3).

The query outputs pass one fully-connected layer into the width of the frozen language model and stand before the
instruction as soft prompts; the loss is the language model's on the answer. The instruction also enters Bridge-Net as
text beside the queries (instruction-aware extraction), which a recipe can switch off. Only what stage 2 uses is kept:
stage 1's heads are dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from mint.model import gather
from mint.model.bridge_net import BridgeNet
from mint.model.freeze import Frozen
from mint.model.projection import WhitenedLinear

if TYPE_CHECKING:
    from mint.types import LanguageModel


class Stage2(nn.Module):
    """Bridge-Net and the fully-connected layer before a frozen language model.

    Args:
        bridge: the stack, from stage 1.
        language: the frozen language model; it is held, not owned: its weights are neither trained nor saved.
        instruction_aware: Bridge-Net reads the instruction too.
        whitened: the layer learns in coordinates that `mint.model.projection` gives it.
        soft_prompts: how many soft prompts one layer over all query outputs together gives; None: one for each query,
            by a layer that the queries share (paper).
    """

    accepts_loss_kwargs = False  # the Trainer must not rescale the loss by a token count

    def __init__(
        self,
        *,
        bridge: BridgeNet,
        language: LanguageModel,
        instruction_aware: bool = True,
        whitened: bool = False,
        soft_prompts: int | None = None,
    ) -> None:
        super().__init__()
        self.bridge = bridge
        self.soft_prompts = soft_prompts
        # Queries that share a layer are rows of its input; else all of them stand in one row.
        inputs, outputs = (1, 1) if soft_prompts is None else (bridge.num_queries, soft_prompts)
        self.projection = (WhitenedLinear if whitened else nn.Linear)(inputs * bridge.width, outputs * language.width)
        self.instruction_aware = instruction_aware
        self._language = Frozen(language)

        # What stage 2 makes no use of would be saved for nothing, and never get a gradient, which data parallelism
        # refuses.
        for owner, name in unused_text_side(bridge, instruction_aware):
            setattr(owner, name, None)

    @property
    def language(self) -> LanguageModel:
        """The frozen language model."""
        return self._language.held

    def forward(
        self,
        audio_features: Tensor,
        audio_mask: Tensor,
        instruction_ids: Tensor,
        instruction_mask: Tensor,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        labels: Tensor,
    ) -> dict[str, Tensor]:
        """Return the loss of a batch of clips with instructions and answers.

        Args:
            audio_features: [B, T, audio width] from the frozen encoder.
            audio_mask: [B, T] bool, True: real.
            instruction_ids: [B, L], the instruction in Bridge-Net's tokens.
            instruction_mask: [B, L] bool, True: real.
            prompt_ids: [B, L'], the instruction in the language model's tokens, from its `collate`.
            prompt_mask: [B, L'] bool, True: real.
            labels: [B, L''], the answer from its `collate`; -100 where nothing is to be predicted.

        Returns:
            `loss`, the mean over the answers' tokens; with several ranks weighted, so that the mean over ranks is the
            mean over all tokens.
        """
        soft_prompt = self.soft_prompt(audio_features, audio_mask, instruction_ids, instruction_mask)  # [B, K, width]
        weight = gather.share((labels != -100).sum(), labels.device)
        return {"loss": weight * self.language.loss(soft_prompt, prompt_ids, prompt_mask, labels)}

    def terms(self, labels: Tensor, **_: Tensor) -> dict[str, Tensor]:
        """Return how many terms the loss of a batch is a mean of: the answers' tokens."""
        return {"loss": (labels != -100).sum()}

    def soft_prompt(
        self, audio_features: Tensor, audio_mask: Tensor, instruction_ids: Tensor, instruction_mask: Tensor
    ) -> Tensor:
        """Return the audio as the language model reads it: [B, soft prompts, width of the language model]."""
        outputs = self.extract(audio_features, audio_mask, instruction_ids, instruction_mask)  # [B, Q, D]
        projected = self.projection(self.projection_inputs(outputs))
        return projected.view(len(projected), -1, self.language.width)

    def projection_inputs(self, outputs: Tensor) -> Tensor:
        """Return the inputs of the fully-connected layer, from query outputs [B, Q, D].

        Returns:
            [B, Q, D], a row for each query; or [B, 1, Q * D], where all of them together make the soft prompts.
        """
        return outputs if self.soft_prompts is None else outputs.flatten(1)[:, None]

    def extract(
        self, audio_features: Tensor, audio_mask: Tensor, instruction_ids: Tensor, instruction_mask: Tensor
    ) -> Tensor:
        """Return Bridge-Net's query outputs [B, Q, D]: what the queries extract from the audio."""
        audio = self.bridge.project_audio(audio_features, audio_mask)
        if self.instruction_aware:
            output = self.bridge.encode_pair(audio, instruction_ids, instruction_mask, length=0)
        else:
            output = self.bridge.encode_queries(audio)
        assert output.queries is not None
        return output.queries


def unused_text_side(bridge: BridgeNet, instruction_aware: bool) -> list[tuple[nn.Module, str]]:
    """Return the modules of Bridge-Net that stage 2 makes no use of, each by its owner and its name there.

    With an instruction, that is the text's feed-forward in the last block, whose outputs nobody reads; without one, it
    is the whole text side.
    """
    feed_forwards = [(block, "text_feed_forward") for block in bridge.blocks]
    if instruction_aware:
        return feed_forwards[-1:]
    return [(bridge, "word_embeddings"), (bridge, "position_embeddings"), *feed_forwards]
