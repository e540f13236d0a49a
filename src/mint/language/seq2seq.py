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
from mint.language.watching import Watch, WatchedEnd

MODELS = ("t5", "mt5")
"""`model_type` of the configurations that the adapter knows."""
READER = "language.family seq2seq"
IGNORED = -100
TOKENS_AT_ONCE = 512
"""Number of decoder tokens of a pass of candidates, for each clip."""
LOGITS_AT_ONCE = 1 << 26
"""Number of logits (rows x vocabulary) that are in memory at a time: 256 MiB in float32."""


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
        """Return prompts for the encoder and answers for the decoder, each with its end token, padded on the right.

        Returns:
            `prompt_ids` [B, L], `prompt_mask` [B, L] bool (True: a token), `labels` [B, A], -100 on the padding.
        """
        prompt_ids, prompt_mask = self._pad(prompts)
        answer_ids, answer_mask = self._pad(answers)
        labels = answer_ids.masked_fill(~answer_mask, IGNORED)
        return {"prompt_ids": prompt_ids, "prompt_mask": prompt_mask, "labels": labels}

    def loss(self, soft_prompt: Tensor, prompt_ids: Tensor, prompt_mask: Tensor, labels: Tensor) -> Tensor:
        """Return the mean negative log-likelihood of the answers' tokens; logits are computed for these alone.

        Args:
            soft_prompt: [B, Q, D].
            prompt_ids: [B, L], as `collate` gives it, like the others.
            prompt_mask: [B, L] bool.
            labels: [B, A].
        """
        hidden, mask = self._encode(soft_prompt, prompt_ids, prompt_mask)
        decoded = self.model.decoder(
            input_ids=self.model.prepare_decoder_input_ids_from_labels(labels),
            encoder_hidden_states=hidden,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state  # [B, A, D]

        predicts = labels != IGNORED
        return functional.cross_entropy(self._logits(decoded[predicts]), labels[predicts])

    @torch.no_grad()
    def score(self, soft_prompt: Tensor, prompts: Sequence[str], candidates: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the log-likelihood of each candidate as the whole answer (vocabulary ranking; paper, section 4.1).

        Returns:
            sums [B, C] over the tokens and the end, and token counts [C].
        """
        # The prompts run once; the decoder attends to them for every pack of candidates.
        hidden, mask = self._encode_prompts(soft_prompt, prompts)
        tokens = list(map(self._tokens, candidates))
        lengths = torch.tensor(list(map(len, tokens)), device=hidden.device)

        sums = torch.zeros(len(prompts), len(candidates), device=hidden.device)
        for pack in pack_candidates(tokens):
            scores = self._token_scores(hidden, mask, [tokens[index] for index in pack])  # [B, tokens of the pack]
            pack_indices = torch.tensor(pack, device=hidden.device)
            owners = pack_indices.repeat_interleave(lengths[pack_indices])  # [tokens of the pack]
            sums.index_add_(1, owners, scores)
        return sums, lengths

    @torch.no_grad()
    def generate(
        self, soft_prompt: Tensor, prompts: Sequence[str], watch: Watch | None = None, **options: Any
    ) -> list[str]:
        """Answer [soft prompt; prompt]; each row stops by itself. Options are those of transformers' `generate`."""
        embedded, mask = self._embed(soft_prompt, **self._prompt(prompts))
        produced = self.model.generate(
            inputs_embeds=embedded,
            attention_mask=mask,
            stopping_criteria=None if watch is None else [WatchedEnd(watch, [int(self.tokenizer.eos_token_id)])],
            **with_defaults(options),
        )
        return [text.strip() for text in self.tokenizer.batch_decode(produced, skip_special_tokens=True)]

    def text_of(self, tokens: Sequence[int]) -> str:
        """Return the text of some tokens of an answer."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a text, its end among them."""
        return len(self._tokens(text))

    def _tokens(self, text: str) -> list[int]:
        """Return the tokens of a text and the end token, whether or not the tokenizer adds it."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids, int(self.tokenizer.eos_token_id)]

    def _pad(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the tokens of texts, padded on the right [B, L], and their mask [B, L] (True: a token)."""
        rows = list(map(self._tokens, texts))
        lengths = torch.tensor(list(map(len, rows)))
        ids = torch.full((len(rows), int(lengths.max())), int(self.tokenizer.pad_token_id))
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
        return ids, torch.arange(ids.shape[1]) < lengths[:, None]

    def _prompt(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Return the prompts as `_embed` takes them, on the model's device."""
        ids, mask = self._pad(prompts)
        device = self.embedding.weight.device
        return {"prompt_ids": ids.to(device), "prompt_mask": mask.to(device)}

    def _embed(self, soft_prompt: Tensor, prompt_ids: Tensor, prompt_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return [soft prompt; prompt; padding] embedded, [B, K, D], and its mask [B, K]."""
        embedded = torch.cat([soft_prompt.to(self.embedding.weight.dtype), self.embedding(prompt_ids)], dim=1)
        return embedded, torch.cat([prompt_mask.new_ones(soft_prompt.shape[:2]), prompt_mask], dim=1).long()

    def _encode(self, soft_prompt: Tensor, prompt_ids: Tensor, prompt_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the encoder's output for [soft prompt; prompt], [B, K, D], and its mask [B, K]."""
        embedded, mask = self._embed(soft_prompt, prompt_ids, prompt_mask)
        return self.model.encoder(inputs_embeds=embedded, attention_mask=mask).last_hidden_state, mask

    def _encode_prompts(self, soft_prompt: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the same for prompts that are text."""
        return self._encode(soft_prompt, **self._prompt(prompts))

    def _logits(self, decoded: Tensor) -> Tensor:
        """Return the logits of the decoder's output, float32."""
        if getattr(self.model.config, "scale_decoder_outputs", False):  # T5 with tied embeddings alone
            decoded = decoded * self.model.model_dim**-0.5
        return self.model.lm_head(decoded).float()

    def _token_scores(self, hidden: Tensor, mask: Tensor, rows: Sequence[list[int]]) -> Tensor:
        """Return the log-probability of every token of the packed candidates, [B, N]."""
        device, batch = hidden.device, len(hidden)
        start = self.model.config.decoder_start_token_id
        target_tokens: list[int] = []
        fed_tokens: list[int] = []
        owner_indices: list[int] = []
        for index, row in enumerate(rows):
            target_tokens += row
            fed_tokens += [start, *row[:-1]]
            owner_indices += [index] * len(row)
        targets = torch.tensor(target_tokens, device=device)  # [N]
        fed = torch.tensor(fed_tokens, device=device)
        owners = torch.tensor(owner_indices, device=device)

        # Each token sees its own candidate, up to itself.
        seen = (owners[:, None] == owners[None, :]).tril()  # [N, N]
        additive = torch.zeros(seen.shape, dtype=hidden.dtype, device=device)
        additive = additive.masked_fill(~seen, torch.finfo(hidden.dtype).min)
        decoded = self.model.decoder(
            input_ids=fed.expand(batch, -1),
            attention_mask=additive.expand(batch, 1, -1, -1),
            encoder_hidden_states=hidden,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state  # [B, N, D]

        # The vocabulary is large: logits of some tokens at a time.
        at_once = max(1, LOGITS_AT_ONCE // (batch * self.model.lm_head.out_features))
        scores = []
        for chunk, wanted in zip(decoded.split(at_once, dim=1), targets.split(at_once), strict=True):
            logits = self._logits(chunk)  # [B, tokens of the chunk, V]
            chosen = logits.gather(2, wanted.expand(batch, -1).unsqueeze(2)).squeeze(2)
            scores.append(chosen - logits.logsumexp(dim=2))
        return torch.cat(scores, dim=1)


def pack_candidates(candidates: Sequence[Sequence[int]], tokens_at_once: int = TOKENS_AT_ONCE) -> Iterator[list[int]]:
    """Yield indices of candidates in packs of so many tokens at most; a longer candidate is a pack of its own."""
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
