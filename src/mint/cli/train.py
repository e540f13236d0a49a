"""`mint train RECIPE [key=value ...]`: train one stage from a recipe, or say what would be trained."""

from __future__ import annotations

import json
import statistics
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from mint.cli._parser import positive
from mint.cli._recipe import add_recipe
from mint.types import MintError

if TYPE_CHECKING:
    from argparse import Namespace

    from mint.cli import Subparsers
    from mint.config import Recipe
    from mint.training.dry_run.costs import Costs


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("train", description="Train one stage from a recipe.")
    add_recipe(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="The folder of the run (default: runs/NAME, with the name in the recipe).",
    )
    parser.add_argument("--resume", action="store_true", help="Continue the run in the folder, if there is one.")
    parser.add_argument(
        "--dry-run", action="store_true", help="Print what would be trained and what it would cost, and train nothing."
    )
    parser.add_argument(
        "--help-keys", action="store_true", help="Print every key that a recipe may have, and train nothing."
    )
    parser.add_argument("--ranks", type=positive, metavar="N", help="With --dry-run: plan for N ranks (default: one).")
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Train, or say what would be trained."""
    from mint.config import load_recipe

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    if arguments.help_keys:
        from mint.cli._keys import describe_keys

        print(describe_keys(recipe))
        return 0
    if arguments.ranks is not None and not arguments.dry_run:
        raise MintError(f"--ranks {arguments.ranks} plans a training; add --dry-run, or launch ranks by torchrun")
    if arguments.dry_run:
        print_plan(recipe, arguments.ranks)
        return 0
    from mint.data.features.prepare import launched_rank
    from mint.files import owning

    output = arguments.output or Path("runs") / recipe.name
    # Several ranks share the folder, which one of them owns for all.
    is_first_rank = launched_rank()[0] == 0
    with owning(output) if is_first_rank else nullcontext():
        is_trained = train_into(output, recipe, arguments.resume)
    if is_first_rank:
        print(
            f"{output}: finished; padding: {describe_padding(output)}" if is_trained else f"{output}: finished already"
        )
    return 0


def train_into(output: Path, recipe: Recipe, resume: bool) -> bool:
    """Train a recipe into a folder that this process owns, and return whether there was anything left to train.

    Args:
        output: the folder of the run.
        recipe: the run.
        resume: whether the folder may hold this run already.

    Raises:
        MintError: the folder holds another run, or one that is not to be resumed, or the recipe cannot be trained.
    """
    from mint.run_folder import is_finished
    from mint.training.checks import check, check_models, has_begun, pinned, refuse_other_recipe
    from mint.training.train import train, used_splits

    # What can be refused is refused before models are loaded and features made, the cheapest first.
    if has_begun(output):
        if not resume:
            raise MintError(f"{output} holds a run; continue it with --resume, or choose another folder with --output")
        refuse_other_recipe(pinned(recipe, output), output)
        if is_finished(output):
            return False
    check(recipe, output)
    recipe = pinned(recipe, output)

    # Everything heavy is imported here, after all that can be refused without it.
    from mint.builders.encoder import build_encoder
    from mint.data.features.prepare import open_examples, prepare_features

    examples = open_examples(recipe.data.manifests, used_splits(recipe))
    encoder = build_encoder(recipe.encoder, "cpu" if recipe.training.get("use_cpu") else None)
    check_models(recipe, encoder)
    features = prepare_features(encoder, examples, recipe.data.max_seconds)
    train(recipe, output, examples, features, encoder)
    return True


def describe_padding(run: Path) -> str:
    """Return what share of each input of a finished run was padding, the mean over the records of its history."""
    from mint.training.trainer import PADDING

    shares: dict[str, list[float]] = {}
    for record in json.loads((run / "history.json").read_text(encoding="utf-8")):
        for key, share in record.items():
            if key.startswith(PADDING):
                shares.setdefault(key.removeprefix(PADDING), []).append(share)
    return ", ".join(f"{statistics.mean(values):.0%} of {name}" for name, values in shares.items())


def print_plan(recipe: Recipe, ranks: int | None = None) -> None:
    """Print the resolved recipe, the parameters of each module, the length of the training and the cost of a step.

    Of several launched ranks, the first prints.

    Args:
        recipe: as it would be trained.
        ranks: by so many; None: as many as were launched.
    """
    import yaml

    from mint.builders.encoder import build_encoder
    from mint.config import recipe_to_dict
    from mint.data.features.prepare import launched_rank, open_examples
    from mint.training.checks import check
    from mint.training.dry_run.plan import plan, plannable

    ranks = ranks or launched_rank()[1]
    here, notes = plannable(recipe, ranks)
    check(here, Path("runs") / recipe.name)
    encoder = build_encoder(recipe.encoder, "cpu", weightless=True)
    planned = plan(here, open_examples(recipe.data.manifests), encoder, ranks)
    # Every rank has planned, since some checks are made by all together.
    if launched_rank()[0] != 0:
        return
    trained_in_all = sum(trained for _, trained, _ in planned.parameters)
    frozen_in_all = sum(frozen for _, _, frozen in planned.parameters)
    print(yaml.safe_dump(recipe_to_dict(recipe), sort_keys=False))
    print(f"{'module':<20} {'trained':>15} {'frozen':>15}")

    for name, trained, frozen in [*planned.parameters, ("all", trained_in_all, frozen_in_all)]:
        print(f"{name:<20} {trained:>15,} {frozen:>15,}")
    print(
        f"\n{planned.draws_per_epoch:,} draws an epoch, {planned.steps_per_epoch:,} steps an epoch, "
        f"{planned.steps:,} steps in all" + (f", on {ranks} ranks" if ranks > 1 else "")
    )
    print(planned.start)
    if planned.costs is not None:
        print_costs(planned.costs)
    for note in [*notes, *planned.notes]:
        print(f"note: {note}")


def print_costs(costs: Costs) -> None:
    """Print what a step costs one device."""
    from mint.training.dry_run.estimate import UTILISATION

    shapes, memory = costs.shapes, costs.memory
    of_parts = f"{costs.parts} micro-batches of " if costs.parts > 1 else ""
    clips = f"{of_parts}{shapes.batch} clips of {shapes.frames} frames, texts of {shapes.text} tokens"
    print(f"\na step of one rank, computed, not measured: {clips}")
    print(f"  forward and backward  {costs.parts * costs.work.flops / 1e12:.3g} TFLOP")
    print(f"  memory                {memory['in all'] / 2**30:.3g} GiB, of which")

    for name, size in memory.items():
        if name != "in all" and size:
            print(f"    {size / 2**30:>8.3g} GiB  {name}")
    for device, seconds in costs.seconds.items():
        print(f"  on one {device:<14} {seconds:.3g} s at {UTILISATION:.0%} of its bf16 peak (assumed)")
    print(f"  encoder, paid once    {costs.encoder_flops / 1e9:.3g} GFLOP a clip")
