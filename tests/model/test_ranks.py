"""However many processes share the batch, losses, gradients and negatives are those of one (gloo, on CPU)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from mint.model import gather
from mint.model.accumulated import Negatives
from mint.model.stage1 import Stage1
from mint.model.stage2 import Stage2
from tiny_models import DEC, present, randomise, tiny_batch, tiny_bridge

if TYPE_CHECKING:
    from pathlib import Path

    from mint.types import LanguageModel

SPLITS = {"2 x 8": (8, 8), "4 x 4": (4, 4, 4, 4), "9 + 7": (9, 7), "5 + 1 + 8 + 2": (5, 1, 8, 2)}


class Language:
    """The smallest language model there is: each position predicts from its own and the mean of the soft prompt."""

    width = 6

    def __init__(self) -> None:
        self.words = torch.randn(40, self.width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss(self, soft_prompt: Tensor, prompt_ids: Tensor, prompt_mask: Tensor, labels: Tensor) -> Tensor:
        """Mean over the labels that are not -100."""
        logits = (self.words[prompt_ids] + soft_prompt.mean(dim=1, keepdim=True)) @ self.words.T
        return functional.cross_entropy(logits.transpose(1, 2), labels)


def stage1() -> tuple[nn.Module, dict[str, Tensor]]:
    """The model and the global batch of 16; captions 3 and 12, of different ranks, are the same."""
    stage = Stage1(bridge=tiny_bridge(), dec_token=DEC, shared_width=8)
    temperature = stage.temperature.detach().clone()
    randomise(stage, seed=5)
    stage.temperature.data.copy_(temperature)
    batch = tiny_batch(batch=16, frames=9, tokens=8, dtype=torch.float64)
    for name in ("text_ids", "text_mask"):
        batch[name][12] = batch[name][3].clone()
    return stage.double().train(), batch


def stage2() -> tuple[nn.Module, dict[str, Tensor]]:
    """The model and the global batch; the ranks predict different numbers of tokens."""
    stage = Stage2(bridge=tiny_bridge(), language=cast("LanguageModel", Language()))
    randomise(stage, seed=5)
    batch, prompts = (tiny_batch(16, frames=9, tokens=8, seed=seed, dtype=torch.float64) for seed in range(2))
    return stage.double().train(), {
        "audio_features": batch["audio_features"],
        "audio_mask": batch["audio_mask"],
        "instruction_ids": batch["text_ids"],
        "instruction_mask": batch["text_mask"],
        "prompt_ids": prompts["text_ids"],
        "prompt_mask": prompts["text_mask"],
        "labels": prompts["text_ids"].masked_fill(~prompts["text_mask"], -100),
    }


MODELS = {"stage 1": stage1, "stage 2": stage2}


def shard(batch: dict[str, Tensor], first: int, count: int) -> dict[str, Tensor]:
    """Some rows of a batch, cut to their own longest clip and text."""
    rows = {name: tensor[first : first + count] for name, tensor in batch.items()}
    for name in [name for name in rows if name.endswith("_mask")]:
        longest = int(rows[name].sum(dim=1).max())
        for part in [part for part in rows if part.split("_")[0] == name.split("_")[0]]:
            rows[part] = rows[part][:, :longest]
        if name == "prompt_mask":
            rows["labels"] = rows["labels"][:, :longest]
    return rows


def step(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Any]:
    """Losses, gradients and (stage 1) negatives of one forward and backward pass."""
    stage: Any = model.module if isinstance(model, DistributedDataParallel) else model
    negatives: list[Any] = []
    if isinstance(stage, Stage1):
        draw = stage.negatives

        def recorded(*arguments: Tensor) -> Negatives:
            drawn = draw(*arguments)
            negatives.append((drawn.clips, drawn.wrong_captions, drawn.captions))
            return drawn

        stage.negatives = recorded  # type: ignore[method-assign, assignment]
    losses = model(**batch)
    losses["loss"].backward()
    gradients = {name: parameter.grad for name, parameter in stage.named_parameters() if parameter.grad is not None}
    return {
        "losses": {name: loss.detach() for name, loss in losses.items()},
        "gradients": gradients,
        "negatives": negatives,
    }


def work(rank: int, folder: str) -> None:
    """What each process does: all splits in turn, each in a process group of its own."""
    torch.set_num_threads(1)
    for name, counts in SPLITS.items():
        if rank >= len(counts):
            continue
        place = f"{folder}/{name.replace(' ', '')}"
        distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=len(counts))
        results: dict[str, Any] = {}
        for kind, make in MODELS.items():
            model, batch = make()
            parallel = DistributedDataParallel(model)
            results[kind] = step(parallel, shard(batch, sum(counts[:rank]), counts[rank]))
            parallel(**shard(batch, sum(counts[:rank]), counts[rank]))  # refuses if a parameter had no gradient
        results["exchange"] = exchange(rank, counts)
        torch.save(results, f"{place}.{rank}.pt")
        distributed.barrier()
        distributed.destroy_process_group()


def exchange(rank: int, counts: tuple[int, ...]) -> dict[str, Any]:
    """The bare exchanges, on rows that tell where they come from: rank r has r + 2 frames and tokens."""
    first, length = sum(counts[:rank]), rank + 2
    own = torch.arange(first, first + counts[rank])
    rows = (own[:, None] * 10.0 + torch.arange(length)).requires_grad_()
    everything = gather.all_rows(rows, fill=-1)
    weights = torch.arange(everything.numel()).view_as(everything) * (rank + 1.0)
    (everything * weights).sum().backward()
    wanted = torch.tensor([sum(counts) - 1, 0, 0, first, sum(counts) // 2][: 3 + rank % 3])
    features = rows.detach()[..., None].expand(-1, -1, 2).bfloat16()
    fetched = gather.fetch_rows(wanted, features, torch.ones(rows.shape, dtype=torch.bool))
    return {
        "own": gather.own_columns(counts[rank], torch.device("cpu")),
        "everything": everything.detach(),
        "gradient": rows.grad,
        "wanted": wanted,
        "fetched": fetched,
        "share": gather.share(counts[rank], torch.device("cpu")),
    }


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What every rank of every split found."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        multiprocessing.spawn(work, args=(str(folder),), nprocs=4)  # type: ignore[attr-defined, no-untyped-call]
    return {
        name: [torch.load(folder / f"{name.replace(' ', '')}.{rank}.pt") for rank in range(len(counts))]
        for name, counts in SPLITS.items()
    }


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Any]]:
    """What one process with the whole batch finds."""
    return {kind: step(*make()) for kind, make in MODELS.items()}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", MODELS)
def test_mean_of_the_losses_is_the_loss_of_one_process(ranks: Any, alone: Any, split: str, kind: str) -> None:
    for name, expected in alone[kind]["losses"].items():
        found = torch.stack([rank[kind]["losses"][name] for rank in ranks[split]]).mean()
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", MODELS)
def test_gradients_are_those_of_one_process(ranks: Any, alone: Any, split: str, kind: str) -> None:
    expected = alone[kind]["gradients"]
    for rank in ranks[split]:
        assert rank[kind]["gradients"].keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(
                rank[kind]["gradients"][name], gradient, atol=1e-6, rtol=1e-6, msg=f"the gradients of {name} differ"
            )


@pytest.mark.parametrize("split", SPLITS)
def test_negatives_are_those_of_one_process(ranks: Any, alone: Any, split: str) -> None:
    (expected,) = alone["stage 1"]["negatives"]
    clips, wrong_captions, captions = expected
    assert (clips != torch.arange(16)).all()
    assert (wrong_captions != captions).any(dim=1).all()
    for index, tensor in enumerate(expected):
        found = torch.cat([rank["stage 1"]["negatives"][0][index] for rank in ranks[split]])
        assert torch.equal(found, tensor)
    starts = torch.tensor(SPLITS[split]).cumsum(dim=0)
    owners = [torch.bucketize(drawn, starts, right=True) for drawn in (torch.arange(16), clips)]
    assert (owners[0] != owners[1]).any()  # some do come from other ranks


@pytest.mark.parametrize("split", SPLITS)
def test_rows_of_all_ranks_and_their_gradient(ranks: Any, split: str) -> None:
    counts, longest = SPLITS[split], len(SPLITS[split]) + 1
    lengths = [rank + 2 for rank, count in enumerate(counts) for _ in range(count)]
    whole = torch.full((16, longest), -1.0)
    for row, length in enumerate(lengths):
        whole[row, :length] = row * 10.0 + torch.arange(length)
    # The sum over ranks of (rank + 1) times the weights.
    gradient = torch.arange(16.0 * longest).view(16, longest) * sum(range(1, len(counts) + 1))
    for index, found in enumerate(rank["exchange"] for rank in ranks[split]):
        assert torch.equal(found["everything"], whole)
        assert torch.equal(found["own"], torch.arange(sum(counts[:index]), sum(counts[: index + 1])))
        assert torch.equal(found["gradient"], gradient[found["own"]][:, : index + 2])
        assert found["share"].item() == counts[index] * len(counts) / 16


@pytest.mark.parametrize("split", SPLITS)
def test_fetched_rows_are_those_asked_for(ranks: Any, split: str) -> None:
    counts, longest = SPLITS[split], len(SPLITS[split]) + 1
    lengths = [rank + 2 for rank, count in enumerate(counts) for _ in range(count)]
    for found in (rank["exchange"] for rank in ranks[split]):
        features, mask = found["fetched"]
        assert features.dtype == torch.bfloat16
        assert mask.dtype == torch.bool
        assert features.shape == (len(found["wanted"]), longest, 2)
        for row, place in enumerate(found["wanted"].tolist()):
            length = lengths[place]
            assert mask[row].tolist() == [True] * length + [False] * (longest - length)
            expected = (place * 10.0 + torch.arange(length)).bfloat16()
            assert torch.equal(features[row, :length], expected[:, None].expand(-1, 2))
            assert (features[row, length:] == 0).all()


def test_nothing_travels_without_a_process_group() -> None:
    rows, device = torch.randn(3, 2, requires_grad=True), torch.device("cpu")
    assert gather.world_size() == 1
    assert gather.all_rows(rows) is rows
    assert gather.share(5, device).item() == 1
    assert gather.own_columns(3, device).tolist() == [0, 1, 2]
    (fetched,) = gather.fetch_rows(torch.tensor([2, 0]), rows)
    assert torch.equal(fetched, present(rows)[[2, 0]])
