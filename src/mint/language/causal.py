"""Frozen causal language models of transformers: Llama, Qwen, OPT and others of their kind.

The sequence is [soft prompt; prompt; answer; end]: MINT's paper uses an encoder-decoder (section 2.3), where the answer
has a sequence of its own; for a causal model everything stands in one, with the loss on the answer alone, as in
BLIP-2's OPT variant. The answer follows the prompt after one space. No begin-of-sequence token is added: the soft
prompt stands first, and is learnt. With a chat template the sequence is [head; soft prompt; prompt and tail; answer;
end]: what the tokenizer's template writes around a user's message, as InstructBLIP's Vicuna variant does without one.
With `earlier_turn` it is [prompt; soft prompt; end; prompt; answer; end] (ours): the soft prompt stands where an answer
stood when the same was asked before. A model that has read its prompt answered once answers it likewise: it copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mint.assets.pretrained import check_kind
from mint.language.candidates import CandidateTree, grow_trees
from mint.language.chat import frame_message
from mint.language.greedy import continue_greedily, is_plain
from mint.language.options import with_defaults
from mint.language.packing import pack_rows
from mint.language.watching import Watch, WatchedEnd
from mint.types import MintError

if TYPE_CHECKING:
    from collections.abc import Sequence

MODELS = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "phi", "phi3", "olmo2", "smollm3", "stablelm"),
    *("gpt2", "gpt_neox", "opt"),
)
"""`model_type` of the configurations that the adapter knows: tests compare each with transformers' own results. Others
may compute something else, as Gemma 2, Cohere and Granite do, which scale or cap the logits, or MPT, whose positions
are distances in the row."""
LEARNED_POSITIONS = ("gpt2", "opt")
"""Model types that have an embedding for each position, and nothing beyond the last."""
READER = "language.family causal"
IGNORED = -100
SENTENCEPIECE_SPACE = "\u2581"
"""Character that such a tokenizer puts for a space."""
LOGITS_AT_ONCE = 1 << 25
"""Number of logits (rows x vocabulary) that are in memory at a time: 128 MiB in float32."""


@dataclass(frozen=True)
class Prefix:
    """What the model keeps of [soft prompt; prompt] of a batch, which ran once; rows are padded on the left."""

    cache: Any
    """Keys and values of all layers (transformers' cache)."""
    mask: Tensor
    """[B, K] bool, True: a token, False: padding."""
    last: Tensor
    """Output at the last position, [B, D]."""


class CausalLanguageModel:
    """Adapter of a frozen causal language model to the `LanguageModel` protocol.

    Args:
        model: a transformers causal model, already frozen.
        tokenizer: its tokenizer.
        identity: name and revision.
        answer_end: text of one token that ends an answer; None: the tokenizer's end of sequence.
        chat_template: soft prompt and prompt are a user's message in the tokenizer's chat template.
        earlier_turn: the soft prompt stands as the answer of an earlier turn; not together with a chat template.

    Raises:
        MintError: a model of another kind, `answer_end` is more than one token, or there is no chat template that can
            be used.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        identity: str,
        answer_end: str | None = None,
        chat_template: bool = False,
        earlier_turn: bool = False,
    ) -> None:
        check_kind(model.config, MODELS, READER)
        self.model = model
        self.tokenizer = tokenizer
        self.identity = identity
        self.stop = int(tokenizer.eos_token_id)
        self.pad = int(tokenizer.pad_token_id) if tokenizer.pad_token_id is not None else self.stop
        self.end = self.stop if answer_end is None else self._single_token(answer_end)
        self.embedding: nn.Embedding = model.get_input_embeddings()
        self.width = self.embedding.embedding_dim

        learned = model.config.model_type in LEARNED_POSITIONS
        # Longest row in tokens; None: any.
        self.positions: int | None = model.config.max_position_embeddings if learned else None
        self.decoder = model.get_decoder()
        self.head = model.get_output_embeddings()

        self.chat = frame_message(tokenizer, identity) if chat_template else None
        self.earlier_turn = earlier_turn
        # Tokens before the soft prompt.
        self.opening = self._tokens(self.chat.head) if self.chat else []
        # SentencePiece's tokenizers put a space before every text by themselves; a chat's answer starts a line.
        self.space = "" if self.chat or tokenizer.tokenize("a")[0].startswith(SENTENCEPIECE_SPACE) else " "

    def collate(self, prompts: Sequence[str], answers: Sequence[str]) -> dict[str, Tensor]:
        """Return rows of prompt and answer, padded on the right, with labels that are -100 on prompt and padding.

        Returns:
            `prompt_ids` [B, L], `prompt_mask` [B, L] bool (True: a token), `labels` [B, L].
        """
        rows = []
        for prompt, answer in zip(prompts, answers, strict=True):
            prompt_ids, answer_ids = self.prompt_tokens(prompt), self.answer_tokens(answer)
            rows.append((prompt_ids + answer_ids, [IGNORED] * len(prompt_ids) + answer_ids))

        length = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), length), self.pad)
        labels = torch.full((len(rows), length), IGNORED)
        mask = torch.zeros(len(rows), length, dtype=torch.bool)
        for row, (row_ids, row_labels) in enumerate(rows):
            ids[row, : len(row_ids)] = torch.tensor(row_ids)
            labels[row, : len(row_ids)] = torch.tensor(row_labels)
            mask[row, : len(row_ids)] = True
        return {"prompt_ids": ids, "prompt_mask": mask, "labels": labels}

    def _single_token(self, text: str) -> int:
        """Return the token of a text that is one.

        Raises:
            MintError: it is several.
        """
        ids = self._tokens(text)
        if len(ids) != 1:
            raise MintError(f"language.answer_end {text!r} is {len(ids)} tokens; choose a text of one, such as '\\n'")
        return ids[0]

    def prompt_tokens(self, prompt: str) -> list[int]:
        """Return the tokens of a prompt, and of what its chat template writes after it."""
        return self._tokens(prompt if self.chat is None else prompt.strip() + self.chat.tail)

    def answer_tokens(self, answer: str) -> list[int]:
        """Return the tokens of a whole answer: a space before it where the prompt needs one, and the end after it."""
        return [*self._tokens(self.space + answer), self.end]

    def loss(self, soft_prompt: Tensor, prompt_ids: Tensor, prompt_mask: Tensor, labels: Tensor) -> Tensor:
        """Return the mean negative log-likelihood of the answers' tokens.

        Short sequences share a row (`mint.language.packing`), and logits are computed for the answers alone.

        Args:
            soft_prompt: [B, Q, D].
            prompt_ids: [B, L], as `collate` gives it, like the others.
            prompt_mask: [B, L] bool.
            labels: [B, L].
        """
        predicts = labels != IGNORED
        embedded, mask, starts = self._rows_of(soft_prompt, prompt_ids, prompt_mask, predicts)
        packing = pack_rows(mask)

        output = self.decoder(
            inputs_embeds=packing.pack(embedded),
            attention_mask=packing.attention_mask(embedded.dtype),
            position_ids=packing.positions,
            use_cache=False,
        )

        # The position before a label predicts it.
        columns = starts[:, None] + torch.arange(labels.shape[1], device=starts.device) - 1  # [B, L]
        before = packing.target.gather(1, columns)[predicts]
        logits = self.head(output.last_hidden_state.flatten(0, 1)[before])
        return functional.cross_entropy(logits.float(), labels[predicts])

    @torch.no_grad()
    def score(self, soft_prompt: Tensor, prompts: Sequence[str], candidates: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the log-likelihood of each candidate as the whole answer (vocabulary ranking; paper, section 4.1).

        [soft prompt; prompt] runs once for each clip. The candidates follow as one packed tree: common beginnings are
        computed once, and a mask lets each token see the prefix and its own ancestors only. Trees are bounded, so that
        thousands of candidates need no more memory than hundreds.

        Returns:
            sums [B, C] over the tokens and the end, and token counts [C].
        """
        prefix = self._run_prefix(soft_prompt, prompts)
        tokens = list(map(self.answer_tokens, candidates))
        self._check_length(prefix.mask.shape[1] + max(map(len, tokens), default=1) - 1)

        sums = prefix.last.new_zeros(len(prompts), len(candidates), dtype=torch.float32)
        for tree in grow_trees(tokens):
            edges = self._edge_scores(prefix, tree)  # [B, number of edges]
            for candidate, path in tree.paths.items():
                sums[:, candidate] = edges[:, path].sum(dim=1)
        return sums, torch.tensor(list(map(len, tokens)), device=sums.device)

    @torch.no_grad()
    def generate(
        self, soft_prompt: Tensor, prompts: Sequence[str], watch: Watch | None = None, **options: Any
    ) -> list[str]:
        """Continue [soft prompt; prompt]; each row stops by itself. Options are those of transformers' `generate`."""
        embedded, mask = self._embed_prefix(soft_prompt, prompts)
        options, ends = with_defaults(options), [self.end, self.stop]

        produced: Any
        if is_plain(options, self.model.generation_config.to_diff_dict()):
            most = options["max_new_tokens"]
            produced = continue_greedily(self.decoder, self.head, embedded, mask, ends, most, watch)
        else:
            produced = self.model.generate(
                inputs_embeds=embedded,
                attention_mask=mask.long(),
                eos_token_id=ends,
                pad_token_id=self.pad,
                stopping_criteria=None if watch is None else [WatchedEnd(watch, ends)],
                **options,
            )
        return [text.strip() for text in self.tokenizer.batch_decode(produced, skip_special_tokens=True)]

    def text_of(self, tokens: Sequence[int]) -> str:
        """Return the text of some tokens of an answer."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a text."""
        return len(self._tokens(text))

    def _tokens(self, text: str) -> list[int]:
        """Return the tokens of a text, without any that the tokenizer would add."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _embed(self, tokens: list[int]) -> Tensor:
        """Return the embeddings of some tokens, [N, D]."""
        return self.embedding(torch.tensor(tokens, device=self.embedding.weight.device, dtype=torch.long))

    def _rows_of(
        self, soft_prompt: Tensor, prompt_ids: Tensor, prompt_mask: Tensor, predicts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return whole rows embedded [B, K, D], their mask [B, K], and where the text of `collate` begins in each [B].

        Args:
            soft_prompt: [B, Q, D].
            prompt_ids: [B, L], prompt and answer.
            prompt_mask: [B, L] bool.
            predicts: [B, L] bool, True: a token of the answer.
        """
        texts = self.embedding(prompt_ids)  # [B, L, D]
        if not self.earlier_turn:
            opened = self._opened(soft_prompt)  # [B, K, D]
            mask = torch.cat([prompt_mask.new_ones(opened.shape[:2]), prompt_mask], dim=1)
            starts = torch.full((len(texts),), opened.shape[1], device=texts.device)
            return torch.cat([opened, texts], dim=1), mask, starts

        # Prompts differ in length, and each stands twice in its row.
        rows, lengths = [], []
        for text, soft, answered in zip(texts, self._opened(soft_prompt), predicts, strict=True):
            turn = self._turn(soft, text[: int(answered.int().argmax())])
            rows.append(torch.cat([turn, text]))
            lengths.append(len(turn))
        starts = torch.tensor(lengths, device=texts.device)
        last = starts + prompt_mask.sum(dim=1)  # [B]
        embedded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return embedded, torch.arange(embedded.shape[1], device=texts.device) < last[:, None], starts

    def _opened(self, soft_prompt: Tensor) -> Tensor:
        """Return what stands before the prompts, [B, K, D]: the soft prompt, in a chat after the template's head."""
        soft_prompt = soft_prompt.to(self.embedding.weight.dtype)
        if not self.opening:
            return soft_prompt
        return torch.cat([self._embed(self.opening).expand(len(soft_prompt), -1, -1), soft_prompt], dim=1)

    def _turn(self, soft_prompt: Tensor, prompt: Tensor) -> Tensor:
        """Return [prompt; soft prompt; end] of one clip, the earlier turn: [L + Q + 1, D].

        Args:
            soft_prompt: [Q, D].
            prompt: [L, D], embedded.
        """
        return torch.cat([prompt, soft_prompt, self._embed([self.end])])

    def _embed_prefix(self, soft_prompt: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return [padding; soft prompt; prompt] embedded, [B, K, D], and its mask [B, K]."""
        rows = []
        for opened, prompt in zip(self._opened(soft_prompt), prompts, strict=True):
            asked = self._embed(self.prompt_tokens(prompt))
            before = self._turn(opened, asked) if self.earlier_turn else opened
            rows.append(torch.cat([before, asked]))
        length = max(map(len, rows))
        self._check_length(length)

        # On the left, so that all answers begin in one column.
        embedded = rows[0].new_zeros(len(rows), length, rows[0].shape[1])
        mask = torch.zeros(len(rows), length, dtype=torch.bool, device=embedded.device)
        for index, row in enumerate(rows):
            embedded[index, length - len(row) :] = row
            mask[index, length - len(row) :] = True
        return embedded, mask

    def _check_length(self, length: int) -> None:
        """Refuse a row that is longer than the model's table of positions."""
        if self.positions is not None and length > self.positions:
            raise MintError(
                f"prompt and answer need {length} tokens, and the language model has {self.positions} positions; "
                "give a shorter prompt or shorter labels"
            )

    def _run_prefix(self, soft_prompt: Tensor, prompts: Sequence[str]) -> Prefix:
        """Run [soft prompt; prompt] once."""
        embedded, mask = self._embed_prefix(soft_prompt, prompts)
        positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
        output = self.decoder(
            inputs_embeds=embedded, attention_mask=mask.long(), position_ids=positions, use_cache=True
        )
        return Prefix(output.past_key_values, mask, output.last_hidden_state[:, -1])

    def _edge_scores(self, prefix: Prefix, tree: CandidateTree) -> Tensor:
        """Return the log-probability of each edge's token after its parent, [B, number of edges]."""
        parents = prefix.last[:, None]  # [B, 1, D]: the prefix, which is ROOT
        if tree.tokens:
            parents = torch.cat([parents, self._run_nodes(prefix, tree)], dim=1)  # [B, 1 + N, D]

        edge_parents = torch.tensor([parent for parent, _ in tree.edges], device=parents.device)
        edge_tokens = torch.tensor([token for _, token in tree.edges], device=parents.device)

        scores = parents.new_empty(parents.shape[0], len(tree.edges), dtype=torch.float32)
        # The vocabulary is large: logits of some parents at a time.
        at_once = max(1, LOGITS_AT_ONCE // (parents.shape[0] * self.head.weight.shape[0]))
        for first in range(0, parents.shape[1], at_once):
            logits = self.head(parents[:, first : first + at_once]).float()  # [B, parents of the chunk, V]
            edges = ((edge_parents >= first) & (edge_parents < first + at_once)).nonzero()[:, 0]
            rows, tokens = edge_parents[edges] - first, edge_tokens[edges]
            scores[:, edges] = logits[:, rows, tokens] - logits.logsumexp(dim=-1)[:, rows]
        return scores

    def _run_nodes(self, prefix: Prefix, tree: CandidateTree) -> Tensor:
        """Return the outputs of the tree's nodes, [B, N, D]; each sees the prefix and its own ancestors."""
        device, dtype = prefix.last.device, prefix.last.dtype
        batch, nodes = len(prefix.mask), len(tree.tokens)

        sees_prefix = prefix.mask[:, None].expand(-1, nodes, -1)  # [B, N, K]
        sees_nodes = tree.ancestors().to(device).expand(batch, -1, -1)  # [B, N, N]
        seen = torch.cat([sees_prefix, sees_nodes], dim=2)[:, None]  # [B, 1, N, K + N]
        additive = torch.zeros(seen.shape, dtype=dtype, device=device)
        additive = additive.masked_fill(~seen, torch.finfo(dtype).min)

        output = self.decoder(
            input_ids=torch.tensor(tree.tokens, device=device).expand(batch, -1),
            attention_mask=additive,
            position_ids=prefix.mask.sum(dim=1, keepdim=True) + torch.tensor(tree.depths, device=device),
            past_key_values=prefix.cache,
            use_cache=True,
        )
        prefix.cache.crop(-nodes)  # the next tree follows the prefix too
        hidden: Tensor = output.last_hidden_state
        return hidden
