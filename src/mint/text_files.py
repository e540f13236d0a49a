"""Text as people save it: any Unicode byte order mark, UTF-8, or Windows-1252; CSV with any of three delimiters; JSON.

All tables and text files that people hand to MINT are read here, so that a file which one command reads, all read.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from mint.types import MintError

FIELD_LIMIT = 1 << 24
"""Characters that a field of a CSV may have: FMA's fields of HTML exceed the 128 KiB that Python allows by default."""
DELIMITERS = ",;\t"
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks with the encoding that each announces; that of UTF-32 begins with that of UTF-16."""
NOT_TEXT = (
    (b"PAR1", "a Parquet file"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet; unpack it, or save the sheet as CSV"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with `git lfs pull`"),
)
"""First bytes of files that are often taken for text, with what they are."""


def read_text(path: Path) -> str:
    """The text of a file, with its line ends as they are.

    Raises:
        MintError: it is no text.
    """
    return "".join(text_lines(path))


def text_lines(path: Path) -> Iterator[str]:
    r"""Yield the lines of a text file with their ends (`\n`, `\r\n` or `\r`), without a byte order mark.

    Each line is read as UTF-8, else as Windows-1252, else as Latin-1: Clotho's metadata has several in one file. A file
    that begins with the byte order mark of UTF-16 or UTF-32 is read as that.

    Raises:
        MintError: it is no text, or not valid in the encoding that its byte order mark announces.
    """
    with path.open("rb") as file:
        head = file.read(32)
        refuse_binary(path, head)
        mark, encoding = next(((mark, name) for mark, name in MARKS if head.startswith(mark)), (b"", None))
        if encoding not in (None, "utf-8"):
            yield from _wide_lines(path, str(encoding))
            return

        file.seek(len(mark))
        for block in file:
            for line in block.splitlines(keepends=True):  # a file of Mac OS 9 is one block
                yield decode(line)


def refuse_binary(path: Path, head: bytes) -> None:
    """Refuse what is known to be no text by its first bytes.

    Raises:
        MintError: it says what the file is.
    """
    for magic, name in NOT_TEXT:
        if head.startswith(magic):
            raise MintError(f"{path} is no text but {name}")
    if b"\0" in head and not head.startswith(tuple(mark for mark, _ in MARKS)):
        raise MintError(f"{path} is no text (it holds null bytes); give a text file, best in UTF-8")


def decode(line: bytes) -> str:
    """Text that is UTF-8, else Windows-1252, else Latin-1."""
    for encoding in ("utf-8", "cp1252"):
        with suppress(UnicodeDecodeError):
            return line.decode(encoding)
    return line.decode("latin-1")


def csv_lines(path: Path, delimiter: str = ",", after_space: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV that are not blank, each with the number of the line in which it begins.

    Args:
        path: read as `text_lines` does.
        delimiter: between fields.
        after_space: whether a space after a delimiter belongs to it.

    Raises:
        MintError: the file is no CSV, such as one with a quote that is never closed.
    """
    csv.field_size_limit(FIELD_LIMIT)
    reader = csv.reader(text_lines(path), delimiter=delimiter, skipinitialspace=after_space, strict=True)
    begins = 1
    try:
        for row in reader:
            if any(row):
                yield begins, row
            begins = reader.line_num + 1
    except csv.Error as error:
        raise MintError(
            f"{path}, line {begins}: no CSV ({error}); mend the quotes of the row that begins there"
        ) from None


def delimiter_of(path: Path, column: str) -> str:
    """The delimiter that sets off a column in the first line of a CSV; a comma where none of them does."""
    for mark in DELIMITERS:
        with suppress(MintError):
            _, header = next(csv_lines(path, mark), (1, []))
            if column in [name.strip() for name in header]:
                return mark
    return DELIMITERS[0]


def read_json(path: Path, hook: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> Any:
    """The value of a JSON file; each object in it as `hook` leaves it.

    Raises:
        MintError: the file is no JSON, or nested too deeply.
    """
    content = path.read_bytes()
    try:
        return json.loads(content, object_hook=hook)
    except RecursionError:
        raise MintError(f"{path}: JSON that is nested too deeply; fetch or write the file again") from None
    except ValueError as error:
        refuse_binary(path, content[:32])
        raise MintError(f"{path}: not valid JSON ({error}); fetch or unpack the file again") from None


def one_line(text: str) -> str:
    """Text with each run of white space, line breaks among it, as one space."""
    return " ".join(text.split())


def _wide_lines(path: Path, encoding: str) -> Iterable[str]:
    try:
        with path.open(encoding=encoding, newline="") as file:
            yield from file
    except UnicodeError as error:
        raise MintError(
            f"{path}: not valid {encoding.upper()}, which its first bytes announce ({error}); save it as UTF-8"
        ) from None
