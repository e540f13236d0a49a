"""`mint assets list | fetch [NAME...] | verify [NAME...]`: the offline weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mint.cli._parser import add_action

if TYPE_CHECKING:
    import argparse

    from mint.cli import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("assets", description="List, fetch or verify the weights that quickstart needs.")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    action = add_action(actions, "list", "Show the name, size, licence, origin and state of each asset.")
    action.add_argument("--json", action="store_true", help="Print JSON.")
    action.set_defaults(run=run_list)

    action = add_action(actions, "fetch", "Fetch assets, check them, and unpack them into the cache folder.")
    action.add_argument("names", nargs="*", metavar="NAME", help="The assets to fetch (default: all).")
    action.add_argument("--json", action="store_true", help="Print JSON, and no progress.")
    action.set_defaults(run=run_fetch)

    action = add_action(actions, "verify", "Hash the fetched files again; the exit code is 1 if one has changed.")
    action.add_argument(
        "names", nargs="*", metavar="NAME", help="The assets to verify (default: all that are fetched)."
    )
    action.add_argument("--json", action="store_true", help="Print JSON.")
    action.set_defaults(run=run_verify)


def run_list(args: argparse.Namespace) -> int:
    """Print the table of assets."""
    from mint.assets import ASSETS, fetched_folder

    rows: list[dict[str, Any]] = []
    for name, asset in ASSETS.items():
        folder = fetched_folder(name)
        rows.append(
            {
                "name": name,
                "purpose": asset.purpose,
                "wheel": asset.wheel,
                "sha256": asset.sha256,
                "size": asset.size,
                "licence": asset.licence,
                "origin": asset.origin,
                "fetched": folder.is_dir(),
                "folder": str(folder),
            }
        )
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        state = f"fetched: {row['folder']}" if row["fetched"] else "not fetched"
        print(f"{row['name']:<10} {row['purpose']}")
        print(f"{'':<10} {row['wheel']}, {row['size'] / 1e6:.1f} MB, {state}")
        print(f"{'':<10} {row['licence']}: {row['origin']}")
    return 0


def run_fetch(args: argparse.Namespace) -> int:
    """Fetch the named assets and print their folders."""
    from mint.assets import ASSETS, fetch

    # With JSON on standard output, whoever reads it is a program, and no bar is wanted.
    folders = {name: str(fetch(name, quiet=args.json)) for name in args.names or ASSETS}
    if args.json:
        print(json.dumps(folders, indent=2))
    else:
        for name, folder in folders.items():
            print(f"{name:<10} {folder}")
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Hash the files of the named assets again; exit code 1 if anything is wrong."""
    from mint.assets import ASSETS, fetched_folder, verify

    # What was never fetched is no fault, unless it is asked for by name.
    names = args.names or [name for name in ASSETS if fetched_folder(name).is_dir()]
    problems = {name: verify(name) for name in names}
    if args.json:
        print(json.dumps(problems, indent=2))
    else:
        for name, found in problems.items():
            for line in found or ["sound"]:
                print(f"{name:<10} {line}")
        if not names:
            print("nothing is fetched; run `mint assets fetch`")
    return 1 if any(problems.values()) else 0
