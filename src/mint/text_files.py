"""Text as people save it: any Unicode byte order mark, UTF-8, or Windows-1252; CSV with any of three delimiters; JSON.

All tables and text files that people hand to MINT are read here, so that a file which one command reads, all read.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from mint.types import MintError

FIELD_LIMIT = 1 << 24
"""Characters that a field of a CSV may have: FMA's fields of HTML exceed the 128 KiB that Python allows by default."""
DELIMITERS = ",;\t"
QUOTE = '"'
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks with the encoding that each announces; that of UTF-32 begins with that of UTF-16."""
NOT_TEXT = (
    (b"PAR1", "a Parquet file; a manifest in Parquet is used as it is, save any other table as CSV"),
    (b"ARROW1", "an Arrow file; save it as CSV"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"BZh", "a bzip2 archive; unpack it"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet; unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet or document; save the sheet as CSV"),
    (b"SQLite format 3\x00", "a database; export the table as CSV"),
    (b"%PDF", "a PDF; give the table itself"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with `git lfs pull`"),
)
"""First bytes of files that are often taken for text, with what they are and what to do."""


def read_text(path: Path) -> str:
    """Return the text of a file, with its line ends as they are.

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
    # Opened as bytes, since each line may have another encoding.
    with path.open("rb") as file:
        head = file.read(32)
        refuse_binary(path, head)
        mark, encoding = _mark_of(head)
        if encoding not in ("", "utf-8"):
            yield from _wide_lines(path, encoding)
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

    # In UTF-16 and UTF-32 half of the bytes of a plain text are null; without a mark, nothing says which it is.
    if b"\0" in head and not _mark_of(head)[1]:
        raise MintError(f"{path} is no text (it holds null bytes); give a text file, best in UTF-8")


def decode(line: bytes) -> str:
    """Return text that is UTF-8, else Windows-1252, else Latin-1."""
    for encoding in ("utf-8", "cp1252"):
        with suppress(UnicodeDecodeError):
            return line.decode(encoding)
    # Windows-1252 leaves five bytes without a character; Latin-1 has one for each.
    return line.decode("latin-1")


def csv_lines(
    path: Path,
    delimiter: str = ",",
    after_space: bool = False,
    broken: Callable[[int, str], None] | None = None,
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV that are not blank, each with the number of the line in which it begins.

    Args:
        path: read as `text_lines` does.
        delimiter: between fields.
        after_space: whether a space after a delimiter belongs to it.
        broken: told the line and the fault of a row whose quotes are wrong within its one line; the rows after it are
            read as before. None: such a row is an error.

    Raises:
        MintError: the file is no CSV. A quote that is never closed is always an error, because the rows after it would
            become part of its field.
    """
    # Strict: otherwise Python takes what follows a closing quote as part of the field, and a file's end for a quote.
    csv.field_size_limit(FIELD_LIMIT)
    reader = csv.reader(text_lines(path), delimiter=delimiter, skipinitialspace=after_space, strict=True)
    begins = 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # A fault in a row over several lines is a quote that was closed by the next one that opens.
            if reader.line_num > begins or "end of data" in str(error):
                opens = _line_of_open_quote(path, begins, reader.line_num, delimiter)
                raise MintError(
                    f"{path}, line {opens}: a quote opens there and is never closed; close it, and double each quote "
                    f"within a quoted field"
                ) from None

            fault = _fault(error)
            if broken is None:
                raise MintError(f"{path}, line {begins}: {fault}") from None
            broken(begins, fault)  # the reader goes on with the next line
        else:
            if any(row):
                yield begins, row

        begins = reader.line_num + 1


def csv_records(
    path: Path,
    columns: Sequence[str],
    skip: Callable[[int, str], None],
    delimiter: str = ",",
    cure: str = "name the columns in the first line",
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows under the header of a CSV by the names of their columns, each with the number of its line.

    What a row lacks at its end is left out of its dictionary. What stands beyond the last column may be the rest of a
    field that lacks its quotes, so that such a row is skipped.

    Args:
        path: read as `text_lines` does.
        columns: those that the header must name.
        skip: told the line and the fault of each row that is left out.
        delimiter: between fields.
        cure: what a person should do where a column is missing.

    Raises:
        MintError: the header lacks one of the columns, or the file is no CSV.
    """
    first, header = next(csv_lines(path, delimiter), (1, []))
    header = [name.strip() for name in header]

    for name in columns:
        if name not in header:
            raise MintError(f"{path}, line {first}: no column {name!r} (found: {', '.join(header) or 'none'}); {cure}")

    for number, row in csv_lines(path, delimiter, broken=skip):
        if number == first:
            continue

        # Empty fields beyond the header are harmless: spreadsheets end lines with delimiters.
        if any(field.strip() for field in row[len(header) :]):
            skip(number, "more fields than the header; put quotes around a field that holds the delimiter")
        else:
            yield number, dict(zip(header, row, strict=False))


def delimiter_of(path: Path, column: str) -> str:
    """Return the delimiter that sets off a column in the first line of a CSV; a comma where none of them does."""
    for mark in DELIMITERS:
        # With a wrong delimiter the quotes may seem wrong too.
        with suppress(MintError):
            _, header = next(csv_lines(path, mark), (1, []))
            if column in [name.strip() for name in header]:
                return mark
    return DELIMITERS[0]


def read_json(path: Path, hook: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> Any:
    """Return the value of a JSON file; each object in it as `hook` leaves it.

    Raises:
        MintError: the file is no JSON, or nested too deeply.
    """
    content = path.read_bytes()

    try:
        try:
            return json.loads(content, object_hook=hook)
        except UnicodeDecodeError:
            # JSON is to be UTF-8, but people save it as any other text.
            return json.loads(read_text(path), object_hook=hook)
    except RecursionError:
        raise MintError(f"{path}: JSON that is nested too deeply; fetch or write the file again") from None
    except ValueError as error:
        refuse_binary(path, content[:32])
        raise MintError(f"{path}: not valid JSON ({error}); fetch or unpack the file again") from None


def shown(value: Any, limit: int = 120) -> str:
    """Return a value as messages quote it: as Python writes it, and cut where it is long."""
    try:
        text = repr(value)
    except RecursionError:
        return "a value that is nested too deeply"
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text):,} characters)"


def one_line(text: str) -> str:
    """Return text with each run of white space, line breaks among it, as one space."""
    return " ".join(text.split())


def _mark_of(head: bytes) -> tuple[bytes, str]:
    """Return the byte order mark that a file begins with and the encoding that it announces; both empty without one."""
    for mark, encoding in MARKS:
        if head.startswith(mark):
            return mark, encoding
    return b"", ""


def _wide_lines(path: Path, encoding: str) -> Iterator[str]:
    """Yield the lines of a text in UTF-16 or UTF-32, with their ends."""
    try:
        with path.open(encoding=encoding, newline="") as file:
            yield from file
    except UnicodeError as error:
        raise MintError(
            f"{path}: not valid {encoding.upper()}, which its first bytes announce ({error}); save it as UTF-8"
        ) from None


def _fault(error: csv.Error) -> str:
    """Return what is wrong with a row of one line, in words."""
    if "expected after" in str(error):
        return "text behind a closing quote; double each quote within a quoted field"
    return str(error)


def _line_of_open_quote(path: Path, begins: int, ends: int, delimiter: str) -> int:
    """Return the line of the quote that was open when reading the row in lines `begins` to `ends` failed."""
    ends_field = {delimiter, "\r", "\n"}
    opens, state = begins, "before"

    # The reader does not say where a field begins: the row is gone through again as the reader does.
    for number, line in enumerate(islice(text_lines(path), begins - 1, ends), start=begins):
        for character in line:
            if state == "quoted":
                state = "closed" if character == QUOTE else "quoted"
            elif character in ends_field:
                state = "before"
            elif state == "before" and character == QUOTE:
                opens, state = number, "quoted"
            elif state == "closed":
                # Two quotes in succession stand for one; behind a closing quote, anything else is the fault.
                if character != QUOTE:
                    return opens
                state = "quoted"
            elif character != " ":
                state = "plain"
    return opens
