"""Frozen encoder-decoder language models of the T5 family (T5, FlanT5, mT5): the paper's is FlanT5-XL.

As in the paper (section 2.3) and InstructBLIP's T5 variant, [soft prompt; prompt] goes into the encoder, the prompt
with the end token that the tokenizer puts there, and the answer is the decoder's labels. The published code leaves T5's
dropout on in training; here the model is frozen for good, dropout off.

Vocabulary ranking packs the candidates of a clip one after another into one decoder sequence, with a mask that keeps
them apart. T5 has no positions but the distances between tokens, which packing leaves alone, so the scores equal those
of one candidate at a time; and the encoder's keys and values are computed once a pass, not once a candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mint.assets.pretrained import check_kind
from mint.language.options import with_defaults

MODELS = ("t5", "mt5")
"""`model_type` of the configurations that the adapter knows."""
READER = "language.family seq2seq"
IGNORED = -100
TOKENS_AT_ONCE = 512
"""Decoder tokens of a pass of candidates, for each clip."""
LOGITS_AT_ONCE = 1 << 26
"""Bound on rows x vocabulary of the logits held at a time: 256 MiB in float32."""


class Seq2SeqLanguageModel:
    """Adapter of a frozen T5 to the `LanguageModel` protocol.

    Args:
        model: transformers' `T5ForConditionalGeneration`, or that of mT5, already frozen.
        tokenizer: its tokenizer.
        identity: name and revision.

    Raises:
        MintError: a model of another kind.
    """

    def __init__(self, model: Any, tokenizer: Any, identity: str) -> None:
        check_kind(model.config, MODELS, READER)
        self.model = model
        self.tokenizer = tokenizer
        self.identity = identity
        self.embedding: nn.Embedding = model.get_input_embeddings()
        self.width = self.embedding.embedding_dim

    def collate(self, prompts: Sequence[str], answers: Sequence[str]) -> dict[str, Tensor]:
        """Prompts for the encoder, answers for the decoder, each padded on the right and closed by the end token."""
        prompt = self._pad([self._tokens(text) for text in prompts])
        answer = self._pad([self._tokens(text) for text in answers])
        labels = answer["ids"].masked_fill(~answer["mask"], IGNORED)
        return {"prompt_ids": prompt["ids"], "prompt_mask": prompt["mask"], "labels": labels}

    def loss(self, soft_prompt: Tensor, prompt_ids: Tensor, prompt_mask: Tensor, labels: Tensor) -> Tensor:
        """Mean negative log-likelihood of the answers' tokens; logits are computed for these alone."""
        hidden, mask = self._encode(soft_prompt, prompt_ids, prompt_mask)
        decoded = self.model.decoder(
            input_ids=self.model.prepare_decoder_input_ids_from_labels(labels),
            encoder_hidden_states=hidden,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        predicts = labels != IGNORED
        return functional.cross_entropy(self._logits(decoded[predicts]), labels[predicts])

    @torch.no_grad()
    def score(self, soft_prompt: Tensor, prompts: Sequence[str], candidates: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Log-likelihood of each candidate as the whole answer (vocabulary ranking; paper, section 4.1).

        Returns:
            sums [B, C] over the tokens and the end, and token counts [C].
        """
        hidden, mask = self._encode_prompts(soft_prompt, prompts)
        tokens = [self._tokens(candidate) for candidate in candidates]
        sums = torch.zeros(len(prompts), len(candidates), device=hidden.device)
        for pack in pack_candidates(tokens):
            scores = self._token_scores(hidden, mask, [tokens[index] for index in pack])  # [B, tokens of the pack]
            owners = torch.tensor([index for index in pack for _ in tokens[index]], device=hidden.device)
            sums.index_add_(1, owners, scores)
        return sums, torch.tensor([len(row) for row in tokens], device=hidden.device)

    @torch.no_grad()
    def generate(self, soft_prompt: Tensor, prompts: Sequence[str], **options: Any) -> list[str]:
        """Answer [soft prompt; prompt]; each row stops by itself. Options are those of transformers' `generate`."""
        embedded, mask = self._embed(soft_prompt, **self._prompt(prompts))
        produced = self.model.generate(inputs_embeds=embedded, attention_mask=mask, **with_defaults(options))
        return [text.strip() for text in self.tokenizer.batch_decode(produced, skip_special_tokens=True)]

    def _tokens(self, text: str) -> list[int]:
        """Tokens of a text and the end token, whether or not the tokenizer adds it."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids, int(self.tokenizer.eos_token_id)]

    def _pad(self, rows: Sequence[list[int]]) -> dict[str, Tensor]:
        length = max(len(row) for row in rows)
        pad = int(self.tokenizer.pad_token_id)
        ids = torch.tensor([row + [pad] * (length - len(row)) for row in rows])
        return {"ids": ids, "mask": torch.arange(length) < torch.tensor([len(row) for row in rows])[:, None]}

    def _prompt(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        padded = self._pad([self._tokens(prompt) for prompt in prompts])
        device = self.embedding.weight.device
        return {"prompt_ids": padded["ids"].to(device), "prompt_mask": padded["mask"].to(device)}

    def _embed(self, soft_prompt: Tensor, prompt_ids: Tensor, prompt_mask: Tensor) -> tuple[Tensor, Tensor]:
        """[soft prompt; prompt; padding] embedded [B, K, D], and its mask [B, K]."""
        embedded = torch.cat([soft_prompt.to(self.embedding.weight.dtype), self.embedding(prompt_ids)], dim=1)
        return embedded, torch.cat([prompt_mask.new_ones(soft_prompt.shape[:2]), prompt_mask], dim=1).long()

    def _encode(self, soft_prompt: Tensor, prompt_ids: Tensor, prompt_mask: Tensor) -> tuple[Tensor, Tensor]:
        embedded, mask = self._embed(soft_prompt, prompt_ids, prompt_mask)
        return self.model.encoder(inputs_embeds=embedded, attention_mask=mask).last_hidden_state, mask

    def _encode_prompts(self, soft_prompt: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return self._encode(soft_prompt, **self._prompt(prompts))

    def _logits(self, decoded: Tensor) -> Tensor:
        if getattr(self.model.config, "scale_decoder_outputs", False):  # T5 with tied embeddings alone
            decoded = decoded * self.model.model_dim**-0.5
        return self.model.lm_head(decoded).float()

    def _token_scores(self, hidden: Tensor, mask: Tensor, rows: Sequence[list[int]]) -> Tensor:
        """Log-probability of every token of the packed candidates: [B, N]."""
        device, batch = hidden.device, len(hidden)
        targets = torch.tensor([token for row in rows for token in row], device=device)
        start = self.model.config.decoder_start_token_id
        fed = torch.tensor([token for row in rows for token in [start, *row[:-1]]], device=device)
        owner = torch.tensor([index for index, row in enumerate(rows) for _ in row], device=device)
        seen = (owner[:, None] == owner[None, :]).tril()  # [N, N]: its own candidate, up to itself
        additive = torch.zeros(seen.shape, dtype=hidden.dtype, device=device)
        additive = additive.masked_fill(~seen, torch.finfo(hidden.dtype).min)
        decoded = self.model.decoder(
            input_ids=fed.expand(batch, -1),
            attention_mask=additive.expand(batch, 1, -1, -1),
            encoder_hidden_states=hidden,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        at_once = max(1, LOGITS_AT_ONCE // (batch * self.model.lm_head.out_features))
        scores = []
        for part, wanted in zip(decoded.split(at_once, dim=1), targets.split(at_once), strict=True):
            logits = self._logits(part)  # [B, tokens of the part, V]
            chosen = logits.gather(2, wanted.expand(batch, -1).unsqueeze(2)).squeeze(2)
            scores.append(chosen - logits.logsumexp(dim=2))
        return torch.cat(scores, dim=1)


def pack_candidates(candidates: Sequence[Sequence[int]], tokens_at_once: int = TOKENS_AT_ONCE) -> Iterator[list[int]]:
    """Indices of candidates in packs of so many tokens at most, or of one candidate."""
    pack: list[int] = []
    size = 0
    for index, candidate in enumerate(candidates):
        if pack and size + len(candidate) > tokens_at_once:
            yield pack
            pack, size = [], 0
        pack.append(index)
        size += len(candidate)
    if pack:
        yield pack
