"""Header of a GGUF file: its metadata and where its tensors lie.

Layout (versions 2 and 3, little endian): magic, version, number of tensors and
of metadata entries; the entries, a typed value by name each; name, shape, kind
and offset of every tensor; padding; the tensors. The file may be hostile: sizes
are checked before anything of that size is read, and the header as a whole is
bounded. The package `gguf` is used for the kinds of numbers alone, since its
reader maps the file into memory and makes several arrays for each text.
"""

from collections.abc import Mapping
import dataclasses
import functools
import importlib
import io
import math
import os
import pathlib
import struct
from typing import Any

import numpy as np

MAX_BYTES = 100 * 2**20  # Of a header; published ones have up to 15 MB.
MAX_ENTRIES = 10_000  # Of metadata; published files have about 40.
MAX_TENSORS = 100_000
MAX_VALUES = 4_000_000  # Of all arrays; tokens and merges: up to 800,000.
_MAX_NAME = 1024  # Bytes.
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 2**16
_MAGIC, _VERSIONS = b'GGUF', (2, 3)
_TEXT, _ARRAY = 8, 9
# Code of a type in the file -> its layout.
_NUMBERS = {
  0: np.dtype('<u1'),
  1: np.dtype('<i1'),
  2: np.dtype('<u2'),
  3: np.dtype('<i2'),
  4: np.dtype('<u4'),
  5: np.dtype('<i4'),
  6: np.dtype('<f4'),
  7: np.dtype('?'),
  10: np.dtype('<u8'),
  11: np.dtype('<i8'),
  12: np.dtype('<f8'),
}
_AGAIN = 'download it again.'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
  """A tensor in a file, not read yet.

  Attributes:
    name: as stored: 'blk.0.attn_q.weight'.
    kind: of its numbers: 'F32', 'Q4_1', …
    shape: outputs first, as in a Hugging Face folder.
    offset: of its first byte in the file.
    block: numbers along the last axis that are stored together.
    block_bytes: of one block.
  """

  name: str
  kind: str
  shape: tuple[int, ...]
  offset: int
  block: int
  block_bytes: int

  @property
  def row_bytes(self) -> int:
    """Bytes of the last axis."""
    return self.shape[-1] // self.block * self.block_bytes

  @property
  def num_bytes(self) -> int:
    """Bytes of the tensor."""
    return math.prod(self.shape[:-1]) * self.row_bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
  """Metadata and tensors of a file.

  Attributes:
    path: of the file.
    metadata: values by key: numbers, booleans, texts, NumPy arrays of numbers,
      and lists of texts.
    tensors: by name.
  """

  path: pathlib.Path
  metadata: Mapping[str, Any]
  tensors: Mapping[str, Entry]


def library(path: pathlib.Path) -> Any:
  """The package `gguf`, imported where a file is first read.

  Args:
    path: of the file, for the message.

  Raises:
    ValueError: it is not installed.
  """
  try:
    return importlib.import_module('gguf')
  except ImportError as error:
    raise ValueError(
      f"{path}: GGUF files need the package gguf: pip install 'dppo_jax[gguf]'"
      f' ({error}).'
    ) from error


def read(path: pathlib.Path) -> Header:
  """The header of a file; read once while the file stays the same.

  Raises:
    ValueError: it is missing, no GGUF file, of another version or byte order,
      truncated, larger than the bounds, or its tensors overlap; one line that
      names the file and the key or tensor.
  """
  if not path.is_file():  # Opening a named pipe would wait for its writer.
    raise ValueError(f'{path}: no such file.')
  stat = path.stat()
  return _read(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _read(path: pathlib.Path, size: int, modified: int) -> Header:
  del modified  # A part of the cache's key.
  gguf = library(path)
  with path.open('rb') as file:
    found = _Reader(file, path, size)
    num_tensors, num_entries = found.start()
    metadata: dict[str, Any] = {}
    for _ in range(num_entries):
      key = found.text('the name of a key', _MAX_NAME)
      if key in metadata:
        raise found.error(f'has {_shown(key)} twice')
      metadata[key] = found.value(_shown(key))
    entries = [found.entry(gguf) for _ in range(num_tensors)]
    end = file.tell()
  return Header(
    path=path,
    metadata=metadata,
    tensors=_placed(found, entries, metadata, end),
  )


def _placed(
  found: '_Reader', entries: list[Entry], metadata: Mapping[str, Any], end: int
) -> dict[str, Entry]:
  """Tensors by name, with offsets from the start of the file."""
  alignment = (
    metadata['general.alignment'] if ('general.alignment' in metadata) else 32
  )
  fits = isinstance(alignment, int) and 1 <= alignment <= _MAX_ALIGNMENT
  if not fits or alignment & (alignment - 1):
    raise found.error(
      f'has general.alignment={str(alignment)[:40]}; a power of two up to'
      f' {_MAX_ALIGNMENT}'
    )
  start = end + -end % alignment
  tensors: dict[str, Entry] = {}
  reached, last = start, 'the header'
  for entry in sorted(entries, key=lambda each: each.offset):
    entry = dataclasses.replace(entry, offset=start + entry.offset)
    name = _shown(entry.name)
    if entry.name in tensors:
      raise found.error(f'has the tensor {name} twice')
    if entry.offset < reached or entry.offset % alignment:
      raise found.error(
        f'has {name} at byte {entry.offset:,}, within {last} or unaligned'
      )
    reached, last = entry.offset + entry.num_bytes, name
    if reached > found.size:
      raise found.error(
        f'is cut off: {name} ends at byte {reached:,}, the file at'
        f' {found.size:,}'
      )
    tensors[entry.name] = entry
  return tensors


def _shown(name: str) -> str:
  """A name from the file, on one line and not too long."""
  return repr(name if len(name) <= 80 else f'{name[:80]}…')


class _Reader:
  """Reads values one after the other, within the bounds."""

  def __init__(self, file: io.BufferedReader, path: pathlib.Path, size: int):
    self.size = size
    self._file = file
    self._path = path
    self._left = min(size, MAX_BYTES)
    self._values = 0

  def error(self, text: str) -> ValueError:
    """An error that names the file and says what to do."""
    return ValueError(f'{self._path}: {text}; {_AGAIN}')

  def take(self, count: int, what: str) -> bytes:
    """The next bytes; raises where the file or the bound ends before."""
    if count > self._left:
      if self.size > MAX_BYTES:
        raise self.error(
          f'has a header of more than {MAX_BYTES:,} bytes, in {what}'
        )
      raise self.error(f'ends within {what}, at byte {self.size:,}')
    self._left -= count
    got = self._file.read(count)
    if len(got) < count:
      raise self.error(f'ends within {what}; it changed while it was read')
    return got

  def number(self, form: str, what: str) -> int:
    """The next number, of a format of `struct`."""
    return struct.unpack(form, self.take(struct.calcsize(form), what))[0]

  def start(self) -> tuple[int, int]:
    """Numbers of tensors and of metadata entries."""
    if self.size < 24 or self.take(4, 'its magic') != _MAGIC:
      raise self.error(
        f'is no GGUF file (it has {self.size:,} bytes and does not begin with'
        ' GGUF)'
      )
    version = self.number('<I', 'its version')
    if version not in _VERSIONS:
      big = int.from_bytes(version.to_bytes(4, 'little'), 'big') in _VERSIONS
      kind = 'big-endian numbers' if big else f'version {version}'
      raise ValueError(
        f'{self._path}: has {kind}; versions 2 and 3 with little-endian numbers'
        ' can be read. Take a newer file of the model.'
      )
    tensors = self.number('<Q', 'its number of tensors')
    entries = self.number('<Q', 'its number of keys')
    for count, most, what in (
      (tensors, MAX_TENSORS, 'tensors'),
      (entries, MAX_ENTRIES, 'keys'),
    ):
      if count > most:
        raise self.error(f'claims {count:,} {what}; at most {most:,}')
    return tensors, entries

  def text(self, what: str, most: int = MAX_BYTES) -> str:
    """The next text."""
    length = self.number('<Q', what)
    if length > most:
      raise self.error(f'has {length:,} bytes in {what}; at most {most:,}')
    try:
      return self.take(length, what).decode('utf-8')
    except UnicodeDecodeError:
      raise self.error(f'has no UTF-8 in {what}') from None

  def value(self, what: str) -> Any:
    """The next typed value."""
    kind = self.number('<I', what)
    if kind == _TEXT:
      return self.text(what)
    if kind == _ARRAY:
      return self._array(what)
    return self._numbers(kind, 1, what)[0].item()

  def _numbers(self, kind: int, count: int, what: str) -> np.ndarray:
    if kind not in _NUMBERS:
      raise self.error(f'has the unknown type {kind} in {what}')
    dtype = _NUMBERS[kind]
    got = self.take(count * dtype.itemsize, what)
    if kind == 7:  # A byte other than 0 and 1 is no boolean to NumPy.
      return np.frombuffer(got, np.uint8) != 0
    return np.frombuffer(got, dtype)

  def _array(self, what: str) -> Any:
    kind = self.number('<I', what)
    count = self.number('<Q', what)
    self._values += count
    if self._values > MAX_VALUES:
      raise self.error(
        f'has more than {MAX_VALUES:,} values in its arrays, with {what}'
      )
    if kind == _TEXT:
      return [self.text(what) for _ in range(count)]
    return self._numbers(kind, count, what)

  def entry(self, gguf: Any) -> Entry:
    """The next tensor, with its offset behind the header."""
    name = self.text('the name of a tensor', _MAX_NAME)
    shown = _shown(name)
    axes = self.number('<I', shown)
    if not 1 <= axes <= _MAX_DIMENSIONS:
      raise self.error(f'has {axes} axes in {shown}; from 1 to 4')
    sizes = struct.unpack(f'<{axes}Q', self.take(8 * axes, shown))
    shape = tuple(reversed(sizes))
    code = self.number('<I', shown)
    offset = self.number('<Q', shown)
    if min(shape) < 1 or max(*shape, math.prod(shape), offset) >= 2**56:
      raise self.error(f'has the shape {list(shape)} in {shown}')
    try:
      kind = gguf.GGMLQuantizationType(code)
      block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    except (KeyError, ValueError):
      raise ValueError(
        f'{self._path}: {shown} has the unknown kind {code} of numbers; take'
        ' another release, such as F16 or Q8_0.'
      ) from None
    if shape[-1] % block:
      raise self.error(
        f'has {shape[-1]} numbers a row in {shown}; {kind.name} stores blocks'
        f' of {block}'
      )
    return Entry(
      name=name,
      kind=kind.name,
      shape=shape,
      offset=offset,
      block=block,
      block_bytes=block_bytes,
    )


def is_file(path: str | os.PathLike[str]) -> bool:
  """Whether a path names a GGUF file, which may be missing, and no folder."""
  path = pathlib.Path(path)
  return path.suffix.lower() == '.gguf' and not path.is_dir()
