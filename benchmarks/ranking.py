"""What do vocabulary ranking and generation cost against doing one thing at a time?

Ranking: the 527 labels of AudioSet for one clip, 32 queries and a prompt of 8 tokens before SmolLM2-135M-Instruct. Ours
runs prompt and queries once and all labels as packed trees. It is held against transformers scoring one label at a time
from the start, and against the plain loop that keeps the keys and values of queries and prompt. Scores must agree and
the ranking must be exactly the same, or nothing is reported. A round of the peers is hundreds of forward passes, a
minute or two on two cores: there are at most three, and each peer warms up on a few labels.

Generation: 16 clips in one batch against one by one; the texts must be the same.

    python benchmarks/ranking.py
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import Row, add_device, alternate, compare, parser, report
from mint.assets import resolve
from mint.builders.language import build_language
from mint.config import LanguageConfig
from mint.language.causal import CausalLanguageModel
from mint.types import CAPTION_PROMPT

PROMPT = "The most prominent instrument in this music is"
PROMPT_TOKENS = 8
QUERIES, QUICKSTART_QUERIES = 32, 8
CLIPS, NEW_TOKENS = 16, 20
OURS = "MINT"
ONE_AT_A_TIME = "transformers, one candidate at a time"
LOOP = "loop over candidates, prefix kept"
ONE_BY_ONE = "one clip by one"
MOST_ROUNDS = 3
TOLERANCE = 1e-3
"""How far two scores of one candidate may differ; a score is a sum over tokens, some tens."""
NOT_IN_YAMNET = (
    "Male speech, man speaking",
    "Female speech, woman speaking",
    "Male singing",
    "Female singing",
    "Battle cry",
    "Funny music",
)
"""The six of AudioSet's 527 classes that YAMNet leaves out."""
FEW = ("bass guitar", "bass drum", "drum", "flute", "electric guitar", "electric piano", "voice", "violin")


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    add_device(options)
    chosen = options.parse_args()
    language = build_language(LanguageConfig(family="tiny") if chosen.quick else LanguageConfig(), chosen.device)
    assert isinstance(language, CausalLanguageModel)
    with torch.no_grad():
        rows = [*measure_ranking(language, chosen), *measure_generation(language, chosen)]
    report("ranking", rows, chosen, device=chosen.device)


def measure_ranking(language: CausalLanguageModel, options: argparse.Namespace) -> list[Row]:
    labels = FEW if options.quick else audioset_labels()
    if not options.quick:
        assert len(language.tokenizer(PROMPT)["input_ids"]) == PROMPT_TOKENS
    soft = soft_prompts(language, 1, QUERIES)
    variants: dict[str, Callable[[], Tensor]] = {
        OURS: lambda: language.score(soft, [PROMPT], labels)[0][0],
        ONE_AT_A_TIME: lambda: one_at_a_time(language, soft, PROMPT, labels),
        LOOP: lambda: loop_on_prefix(language, soft, PROMPT, labels),
    }
    for peer in (one_at_a_time, loop_on_prefix):
        peer(language, soft, PROMPT, FEW)
    scores: dict[str, Tensor] = {OURS: variants[OURS]()}
    seconds: dict[str, tuple[float, ...]] = dict.fromkeys(variants, ())
    for number in range(min(options.rounds, MOST_ROUNDS)):
        for name in list(variants) if number % 2 == 0 else reversed(list(variants)):
            start = time.perf_counter()
            scores[name] = variants[name]()
            if language.embedding.weight.is_cuda:
                torch.cuda.synchronize()
            seconds[name] += (time.perf_counter() - start,)
    for name in (ONE_AT_A_TIME, LOOP):
        check_ranking(scores[OURS], scores[name], name)
    aims = {} if options.quick else {ONE_AT_A_TIME: 10.0, LOOP: 10.0}
    case = f"{len(labels)} candidates, {QUERIES} queries, one clip"
    return compare(case, "vocabulary ranking", seconds, aims)


def measure_generation(language: CausalLanguageModel, options: argparse.Namespace) -> list[Row]:
    soft = soft_prompts(language, CLIPS, QUICKSTART_QUERIES)
    limit: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS}

    def batched() -> list[str]:
        return language.generate(soft, [CAPTION_PROMPT] * CLIPS, **limit)

    def one_by_one() -> list[str]:
        return [language.generate(soft[row : row + 1], [CAPTION_PROMPT], **limit)[0] for row in range(CLIPS)]

    if batched() != one_by_one():
        raise SystemExit("a clip's text depends on the batch: not the same computation")
    seconds = alternate({OURS: batched, ONE_BY_ONE: one_by_one}, options.rounds)
    case = f"{CLIPS} clips, {QUICKSTART_QUERIES} queries, {NEW_TOKENS} tokens each"
    return compare(case, "greedy generation", seconds, {} if options.quick else {ONE_BY_ONE: 4.0})


def audioset_labels() -> list[str]:
    """AudioSet's 527 display names."""
    with (Path(resolve("asset:yamnet")) / "yamnet_class_map.csv").open(encoding="utf-8", newline="") as lines:
        return [*(row["display_name"] for row in csv.DictReader(lines)), *NOT_IN_YAMNET]


def soft_prompts(language: CausalLanguageModel, clips: int, queries: int) -> Tensor:
    """Random soft prompts of the size of the model's own token embeddings."""
    weight = language.embedding.weight
    noise = torch.randn(clips, queries, language.width, generator=torch.Generator().manual_seed(0))
    return noise.to(weight) * weight.std()


def one_at_a_time(language: CausalLanguageModel, soft: Tensor, prompt: str, candidates: Sequence[str]) -> Tensor:
    """Log-likelihoods [C]: transformers' forward on [soft prompt; prompt; candidate] for each candidate."""
    before = language.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    scores = []
    for candidate in candidates:
        tokens = language.answer_tokens(candidate)
        ids = torch.tensor([before + tokens], device=soft.device)
        logits = language.model(inputs_embeds=torch.cat([soft, language.embedding(ids)], dim=1)).logits
        scores.append(_sum(logits[0, -len(tokens) - 1 : -1], tokens))
    return torch.stack(scores)


def loop_on_prefix(language: CausalLanguageModel, soft: Tensor, prompt: str, candidates: Sequence[str]) -> Tensor:
    """The same, with [soft prompt; prompt] run once and its keys and values kept."""
    before = torch.tensor([language.tokenizer(prompt, add_special_tokens=False)["input_ids"]], device=soft.device)
    prefix = language.model(inputs_embeds=torch.cat([soft, language.embedding(before)], dim=1), use_cache=True)
    scores = []
    for candidate in candidates:
        tokens = language.answer_tokens(candidate)
        logits = prefix.logits[0, -1:]
        if len(tokens) > 1:
            ids = torch.tensor([tokens[:-1]], device=soft.device)
            output = language.model(input_ids=ids, past_key_values=prefix.past_key_values, use_cache=True)
            logits = torch.cat([logits, output.logits[0]])
            prefix.past_key_values.crop(-ids.shape[1])
        scores.append(_sum(logits, tokens))
    return torch.stack(scores)


def check_ranking(ours: Tensor, theirs: Tensor, peer: str) -> None:
    """Scores agree and the order of the candidates is the same.

    Raises:
        SystemExit: they are not.
    """
    difference = float((ours - theirs).abs().max())
    if not difference <= TOLERANCE:
        raise SystemExit(f"scores differ from those of {peer} by {difference}: not the same computation")
    if not torch.equal(ours.argsort(descending=True, stable=True), theirs.argsort(descending=True, stable=True)):
        raise SystemExit(f"the ranking is not that of {peer}, though scores agree to {difference:.1e}")


def _sum(logits: Tensor, tokens: Sequence[int]) -> Tensor:
    chosen = torch.tensor(tokens, device=logits.device)
    return logits.float().log_softmax(dim=-1).gather(1, chosen[:, None]).sum()


if __name__ == "__main__":
    main()
