"""The initialisers (weights) of an ONNX file, read from the protobuf wire format without the `onnx` package.

The field numbers are those of onnx.proto. Entries of external_data have the key 1 and the value 2.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]

TYPES = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8"}
"""NumPy's type of each TensorProto.DataType that is read here."""
GRAPH = 7
"""Field of a ModelProto."""
INITIALISER = 5
"""Field of a GraphProto."""
DIMS, DATA_TYPE, NAME, RAW_DATA, EXTERNAL_DATA = 1, 2, 8, 9, 13
"""Fields of a TensorProto."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf."""


def read_initialisers(path: Path) -> dict[str, Array]:
    """Return the initialisers of an ONNX file by name; external data are read from the files beside it.

    Raises:
        ValueError: an initialiser is of a type or stored in a way that is not read here.
    """
    initialisers = {}
    for field, graph in _fields(path.read_bytes()):
        if field != GRAPH:
            continue
        for graph_field, tensor in _fields(graph):
            if graph_field == INITIALISER:
                name, value = _read_tensor(tensor, path.parent)
                initialisers[name] = value
    return initialisers


def _read_tensor(message: bytes, folder: Path) -> tuple[str, Array]:
    """Return name and value of a TensorProto.

    Args:
        message: its bytes.
        folder: the folder of the file, for external data.
    """
    dims: list[int] = []
    name, kind, raw = "", 0, b""
    entries: dict[str, str] = {}
    for field, value in _fields(message):
        if field == DIMS:
            dims.append(value)
        elif field == DATA_TYPE:
            kind = value
        elif field == NAME:
            name = value.decode()
        elif field == RAW_DATA:
            raw = value
        elif field == EXTERNAL_DATA:
            # Key and value, in fields 1 and 2: where the values are, in which file and from which byte.
            entry = dict(_fields(value))
            entries[entry[1].decode()] = entry[2].decode()

    if kind not in TYPES:
        raise ValueError(f"initialiser {name!r} has ONNX data type {kind}; those read are {sorted(TYPES)}")

    # Values lie in the message itself, or in a file beside the model.
    dtype = np.dtype(TYPES[kind])
    if entries:
        count, offset = int(entries["length"]) // dtype.itemsize, int(entries.get("offset", 0))
        array = np.fromfile(folder / entries["location"], dtype, count, offset=offset)
    else:
        array = np.frombuffer(raw, dtype)
    if array.size != math.prod(dims):
        raise ValueError(f"initialiser {name!r} has {array.size} stored values for shape {dims}")
    return name, array.reshape(dims)


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield field numbers and values of a protobuf message: whole numbers, or bytes."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        # Seven bits in each byte, the lowest first; the eighth says that more follow.
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < len(message):
        # The low three bits say how the value is stored.
        field, kind = divmod(varint(), 8)
        if kind == VARINT:
            yield field, varint()
            continue

        if kind not in (FIXED64, BYTES, FIXED32):
            raise ValueError(f"protobuf wire type {kind} at byte {position}: not an ONNX file, or a damaged one")
        # Bytes are preceded by their length.
        size = {FIXED64: 8, FIXED32: 4}.get(kind) or varint()
        yield field, message[position : position + size]
        position += size
