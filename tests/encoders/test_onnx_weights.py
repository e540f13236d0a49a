"""The ONNX reader on files whose bytes are put together here, field by field."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mint.encoders.onnx_weights import read_initialisers


def varint(value: int) -> bytes:
    head = b""
    while value > 127:
        head, value = head + bytes([value & 127 | 128]), value >> 7
    return head + bytes([value])


def whole(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def text(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def tensor(name: bytes, kind: int, dims: tuple[int, ...], raw: bytes = b"", external: dict[bytes, bytes] = {}) -> bytes:  # noqa: B006
    message = b"".join(whole(1, size) for size in dims) + whole(2, kind) + text(8, name)
    message += b"".join(text(13, text(1, key) + text(2, value)) for key, value in external.items())
    return message + (whole(14, 1) if external else text(9, raw))


def write_model(path: Path, *tensors: bytes) -> Path:
    node = text(1, b"input") + text(4, b"Relu")
    graph = text(1, node) + text(2, b"graph") + b"".join(text(5, one) for one in tensors)
    fixed = varint(99 << 3 | 5) + b"\1\2\3\4" + varint(98 << 3 | 1) + b"12345678"
    path.write_bytes(whole(1, 11) + text(2, b"producer") + fixed + text(7, graph) + text(8, whole(2, 20)))
    return path


def test_every_type_shape_and_place(tmp_path: Path) -> None:
    values: dict[str, np.ndarray] = {
        "floats": np.linspace(-3, 3, 600, dtype=np.float32).reshape(10, 3, 20),
        "scalar": np.array(7.5, dtype=np.float32),
        "bytes": np.arange(256, dtype=np.uint8),
        "signed": np.array([[-1, 2]], dtype=np.int8),
        "ints": np.array([2**31 - 1, -5], dtype=np.int32),
        "longs": np.array([-1, 2**40], dtype=np.int64),
    }
    kinds = dict(zip(values, (1, 1, 2, 3, 6, 7), strict=True))
    outside = np.arange(12, dtype=np.float32).reshape(3, 4)
    (tmp_path / "weights.data").write_bytes(b"skip" + outside.tobytes() + b"more")
    messages = [tensor(name.encode(), kinds[name], array.shape, array.tobytes()) for name, array in values.items()]
    entries = {b"location": b"weights.data", b"offset": b"4", b"length": b"48"}
    found = read_initialisers(write_model(tmp_path / "m.onnx", *messages, tensor(b"outside", 1, (3, 4), b"", entries)))
    assert list(found) == [*values, "outside"]
    for name, array in {**values, "outside": outside}.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(ValueError, match=r"'w' has ONNX data type 10"):
        read_initialisers(write_model(path, tensor(b"w", 10, (1,), b"\0\0")))
    with pytest.raises(ValueError, match=r"'w' has 1 stored values for shape \[2\]"):
        read_initialisers(write_model(path, tensor(b"w", 1, (2,), b"\0\0\0\0")))
    path.write_bytes(b"this is not ONNX")
    with pytest.raises(ValueError, match="not an ONNX file"):
        read_initialisers(path)
