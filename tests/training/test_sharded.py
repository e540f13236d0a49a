"""Two processes (gloo, on CPU) whose weights are spread over both: what they learn is what one process learns.

Accelerate offers FSDP to accelerators alone; the processes say that they are such, and all else is as it is there.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from accelerate import state as accelerate_state
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from torch import distributed

from mint.config import LanguageConfig, LoraConfig
from mint.language.shard import find_blocks, shard_blocks
from mint.training.trainer import PADDING
from mint.types import MintError
from tiny_languages import tiny_language, tiny_seq2seq
from tiny_ranks import run_ranks
from tiny_runs import recipe, train_recipe, write_corpus

if TYPE_CHECKING:
    from mint.config import Recipe

RANKS = 2
HELD_OUT = ("high0", "high1", "high2", "middle3", "middle4")
LANGUAGE = ("language2", *(("lora2",) if importlib.util.find_spec("peft") else ()))
CASES = {"fsdp1": 1, "fsdp2": 2, **dict.fromkeys(LANGUAGE, 2)}
"""The stage of each."""


def wanted(case: str, folder: Path, ranks: int) -> Recipe:
    """Three steps over full batches, without dropout, with figures and a checkpoint after each of them."""
    batch: dict[str, Any] = {f"per_device_{kind}_batch_size": 4 // ranks for kind in ("train", "eval")}
    backend: dict[str, Any] = {"ddp_backend": "gloo"} if ranks > 1 else {}
    sharded = {"fsdp": True} if ranks > 1 and case.startswith("fsdp") else {}
    made = recipe(
        CASES[case],
        folder / "corpus.jsonl",
        **{"optim": "sgd", "learning_rate": 0.05, "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1},
        **{"save_total_limit": 9, **batch, **backend, **sharded},
    )
    made = replace(made, bridge=replace(made.bridge, dropout=0.0))
    if case.startswith("fsdp"):
        return made
    lora = LoraConfig(rank=2) if case == "lora2" else None
    return replace(made, language=LanguageConfig(family="tiny", shard=True, lora=lora))


def call_ranks_accelerators() -> None:
    made = accelerate_state.PartialState.__init__

    def initialise(self: Any, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_XPU

    accelerate_state.PartialState.__init__ = initialise


def train_sharded(rank: int, folder: Path) -> None:
    """FSDP: both stages; the first with Adam, and again from its second checkpoint; and a recipe that is refused."""
    call_ranks_accelerators()
    for case in ("fsdp1", "fsdp2"):
        train_recipe(wanted(case, folder, RANKS), folder / "two" / case)
    made = wanted("fsdp1", folder, RANKS)
    adam = replace(made, training={**made.training, "optim": "adamw_torch", "learning_rate": 1e-3})
    train_recipe(adam, folder / "whole")
    if rank == 0:
        shutil.copytree(folder / "whole" / "checkpoint-2", folder / "again" / "checkpoint-2")
    distributed.barrier()
    train_recipe(adam, folder / "again")
    blocks = {"fsdp_config": {"transformer_layer_cls_to_wrap": ["Block"]}}
    with pytest.raises(MintError, match=r"transformer_layer_cls_to_wrap is .*Block.*, but FSDP must gather"):
        train_recipe(replace(made, training={**made.training, **blocks}), folder / f"refused{rank}")


def train_with_sharded_language(rank: int, folder: Path) -> None:
    """The language model is spread, the stage model is DDP's."""
    for case in LANGUAGE:
        train_recipe(wanted(case, folder, RANKS), folder / "two" / case)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case by one process (`one/CASE`) and by two (`two/CASE`)."""
    folder = tmp_path_factory.mktemp("runs")
    lines = [json.loads(line) for line in write_corpus(folder, clips=6).read_text().splitlines()]
    for line in lines:
        line["split"] = "validation" if line["id"] in HELD_OUT else "train"
        line["task"] = "pitch" if line["id"].startswith("high") else "depth"
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(folder / "cache"))
        for case in CASES:
            train_recipe(wanted(case, folder, ranks=1), folder / "one" / case)
        run_ranks(train_sharded, folder, RANKS)
        run_ranks(train_with_sharded_language, folder, RANKS)
    return folder


def history(run: Path) -> list[dict[str, float]]:
    """Losses and figures; the share of padding is that of each rank's own batches."""
    records = [line for line in json.loads((run / "history.json").read_text()) if "loss" in line or "eval_loss" in line]
    return [{name: value for name, value in line.items() if not name.startswith(PADDING)} for line in records]


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_with_spread_weights_learn_what_one_process_learns(runs: Path, case: str) -> None:
    one, two = (load_file(runs / count / case / "model.safetensors") for count in ("one", "two"))
    assert one.keys() == two.keys()
    for name, expected in one.items():
        torch.testing.assert_close(two[name], expected, rtol=1e-4, atol=1e-5, msg=name)
    logged = history(runs / "two" / case), history(runs / "one" / case)
    assert len(logged[0]) == 6
    for ours, theirs in zip(*logged, strict=True):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3), name


def test_a_run_under_fsdp_goes_on_from_its_checkpoint(runs: Path) -> None:
    whole, again = (load_file(runs / name / "model.safetensors") for name in ("whole", "again"))
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())
    assert not (runs / "again" / "checkpoint-1").exists()


def compare_languages(rank: int, folder: Path) -> None:
    """Loss, gradient and ranking of models before and after they are spread, and what each rank holds."""
    distributed.init_process_group("gloo")
    for family in ("llama", "opt", "flan"):
        language: Any = tiny_seq2seq(family) if family == "flan" else tiny_language(family)
        soft = torch.randn(3, 4, language.width, generator=torch.Generator().manual_seed(rank)).requires_grad_()
        batch = language.collate(["What is it?"] * 3, ["a dog", "a cat", "rain"])

        def found(language: Any = language, soft: Any = soft, batch: Any = batch) -> list[torch.Tensor]:
            loss = language.loss(soft, **batch)
            ranked, _ = language.score(soft.detach(), ["What is it?"] * 3, ["a dog", "rain", "a bird that sings"])
            return [loss, *torch.autograd.grad(loss, soft), ranked]

        expected = found()
        blocks = find_blocks(language.model)
        sizes = [sum(weight.numel() for weight in block.parameters()) for block in blocks]
        shard_blocks(language.model, "cpu", RANKS)
        for ours, theirs in zip(found(), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        for block, size in zip(blocks, sizes, strict=True):
            held: Any = list(block.parameters())
            assert sum(weight.to_local().numel() for weight in held) < 0.6 * size
            assert not any(weight.requires_grad for weight in held)


def test_a_language_model_that_is_spread_gives_the_same(tmp_path: Path) -> None:
    run_ranks(compare_languages, tmp_path, RANKS)


def test_one_process_spreads_nothing() -> None:
    language: Any = tiny_language("llama")
    shard_blocks(language.model, "cpu", ranks=1)
    assert all(type(weight) is torch.nn.Parameter for weight in language.model.parameters())


def test_a_model_that_does_not_name_its_blocks() -> None:
    with pytest.raises(MintError, match=r"language\.shard is true, but Linear does not name its blocks"):
        find_blocks(torch.nn.Linear(2, 2))
