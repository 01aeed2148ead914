"""Safetensors: named arrays in files, read by slices and written one by one.

A file has the size of its header in eight bytes, the header (JSON: dtype, shape
and byte range of every array by name), and the arrays, which must tile the rest
of the file: otherwise two readers could load different weights. Nothing in it
is executed. A folder has one file, or several with an index of array names. The
library of that name is not used, since it returns no bfloat16 as NumPy and
writes from memory only.
"""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import json
import math
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from dppo_jax import bounded_json
from dppo_jax.runtime import activity
from dppo_jax.runtime.hub import json_files
from dppo_jax.runtime.storage.files import open_atomically

SINGLE = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
# Name in a header -> dtype.
DTYPES = {
  'F32': np.dtype(np.float32),
  'F16': np.dtype(np.float16),
  'BF16': np.dtype(jnp.bfloat16),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_METADATA = '__metadata__'  # Key of the header with free text by name.
_MAX_HEADER = 100 * 2**20  # Bytes; the limit of the format.
_CHUNK = 32 * 2**20  # Bytes read at a time.
_PREFIX = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTensor:
  """Array in a file, not read yet.

  Attributes:
    path: of the file.
    name: of the array.
    dtype: one of `DTYPES`.
    shape: as stored.
    offset: of its first byte in the file.
  """

  path: pathlib.Path
  name: str
  dtype: np.dtype[Any]
  shape: tuple[int, ...]
  offset: int

  @property
  def end(self) -> int:
    """Offset of the byte after it."""
    return self.offset + math.prod(self.shape) * self.dtype.itemsize

  def read(
    self, view: Sequence[int], index: Sequence[slice], out: np.ndarray
  ) -> None:
    """Copies a part into `out`, cast to its dtype, a few rows at a time.

    Args:
      view: shape to which the array is reshaped.
      index: one slice per axis of `view`, of step 1.
      out: output, of the shape of the part.

    Raises:
      ValueError: the file was truncated meanwhile.
    """
    if not view:
      view, index, out = (1,), (slice(0, 1),), out.reshape(1)
    first, *others = index
    begin, end, _ = first.indices(view[0])
    row = math.prod(view[1:])
    step = max(1, _CHUNK // max(1, row * self.dtype.itemsize))
    with self.path.open('rb') as file:
      for low in range(begin, end, step):
        high = min(end, low + step)
        file.seek(self.offset + low * row * self.dtype.itemsize)
        read = np.fromfile(file, self.dtype, (high - low) * row)
        if read.size < (high - low) * row:
          raise ValueError(
            f'{self.path}: ends within {self.name!r}; it changed while it was'
            ' read. Copy it again.'
          )
        rows = read.reshape(high - low, *view[1:])
        out[low - begin : high - begin] = rows[(slice(None), *others)]


def open_folder(folder: pathlib.Path) -> dict[str, StoredTensor]:
  """Arrays of a folder by name; reads headers only.

  Args:
    folder: with model.safetensors, or model.safetensors.index.json and the
      files that it lists.

  Raises:
    ValueError: it has neither or both, or a file is damaged, truncated or
      missing.
  """
  if (folder / INDEX).is_file():
    if (folder / SINGLE).is_file():
      raise ValueError(
        f'{folder}: holds both {SINGLE} and {INDEX}, and readers differ in'
        ' which they take; remove what belongs to another release.'
      )
    return _open_shards(folder)
  if (folder / SINGLE).is_file():
    return read_header(folder / SINGLE)
  others = (
    sorted(p.name for p in folder.glob('*.bin')) if folder.exists() else ()
  )
  hint = (
    f' It holds {others[0]}, a pickle, which is never loaded; convert it with'
    ' the converter of its publisher.'
    if others
    else ' Download the safetensors files of the model into it.'
  )
  raise ValueError(f'{folder}: neither {SINGLE} nor {INDEX} is there.{hint}')


def _open_shards(folder: pathlib.Path) -> dict[str, StoredTensor]:
  weight_map = json_files.read_json(folder / INDEX, unique=True).get(
    'weight_map'
  )
  if not isinstance(weight_map, dict) or not weight_map:
    raise ValueError(
      f'{folder / INDEX}: lacks weight_map, the file of each tensor; download'
      ' it again.'
    )
  files: dict[str, dict[str, StoredTensor]] = {}
  tensors = {}
  for name, file in weight_map.items():
    if not isinstance(file, str) or pathlib.PurePath(file).name != file:
      raise ValueError(
        f'{folder / INDEX}: places {name!r} in {file!r}; the name of a file in'
        ' the same folder.'
      )
    if file not in files:
      if not (folder / file).is_file():
        raise ValueError(
          f'{folder / file}: missing, and {INDEX} places {name!r} in it;'
          ' download that file.'
        )
      files[file] = read_header(folder / file)
    if name not in files[file]:
      raise ValueError(
        f'{folder / file}: lacks {name!r}, which {INDEX} places in it; download'
        ' both again.'
      )
    tensors[name] = files[file][name]
  for stored in files.values():
    for name, tensor in stored.items():
      if tensors.get(name) is not tensor:
        other = 'places elsewhere' if name in tensors else 'does not list'
        raise ValueError(
          f'{tensor.path}: holds {name!r}, which {INDEX} {other}; download both'
          ' again.'
        )
  return tensors


def read_header(path: pathlib.Path) -> dict[str, StoredTensor]:
  """Arrays of one file by name.

  Raises:
    ValueError: it is no safetensors file, is truncated, or its arrays do not
      tile it.
  """
  size = path.stat().st_size
  with path.open('rb') as file:
    length = int.from_bytes(file.read(_PREFIX), 'little')
    if size < _PREFIX or length > _MAX_HEADER or _PREFIX + length > size:
      raise ValueError(
        f'{path}: no safetensors file, or cut off within its header (it has'
        f' {size:,} bytes); download it again.'
      )
    text = file.read(length)
  try:
    header = bounded_json.parse(
      text, object_pairs_hook=json_files.table_of_unique
    )
  except ValueError as error:
    raise ValueError(
      f'{path}: its header is not JSON ({error}); download it again.'
    ) from None
  if not isinstance(header, dict):
    raise ValueError(f'{path}: its header is no table; download it again.')
  about = header.pop(_METADATA, {})
  if not isinstance(about, dict) or not all(
    isinstance(value, str) for value in about.values()
  ):
    raise ValueError(
      f'{path}: {_METADATA} is no table of texts; download it again.'
    )
  start = _PREFIX + length
  tensors = {
    name: _entry(path, name, entry, start, size)
    for name, entry in header.items()
  }
  _check_tiling(path, tensors.values(), start, size)
  return tensors


def _check_tiling(
  path: pathlib.Path, tensors: Iterable[StoredTensor], start: int, size: int
) -> None:
  """Raises on arrays that overlap, and on bytes of no array."""
  reached, last = start, 'the header'
  for tensor in sorted(tensors, key=lambda each: (each.offset, each.end)):
    if tensor.offset != reached:
      what = 'overlaps' if tensor.offset < reached else 'leaves a hole after'
      raise ValueError(
        f'{path}: {tensor.name!r}, from byte {tensor.offset:,}, {what} {last},'
        f' which ends at byte {reached:,}; download it again.'
      )
    reached, last = tensor.end, repr(tensor.name)
  if reached != size:
    raise ValueError(
      f'{path}: has {size - reached:,} bytes after {last}, which ends at byte'
      f' {reached:,}; download it again.'
    )


def _entry(
  path: pathlib.Path, name: str, entry: Any, start: int, size: int
) -> StoredTensor:
  try:
    dtype, shape = entry['dtype'], tuple(map(_whole, entry['shape']))
    begin, end = map(_whole, entry['data_offsets'])
  except (KeyError, TypeError, ValueError):
    raise ValueError(
      f'{path}: {name!r} lacks a dtype, a shape or offsets; download it again.'
    ) from None
  if not isinstance(dtype, str) or dtype not in DTYPES:
    raise ValueError(
      f'{path}: {name!r} has dtype {dtype}; {", ".join(DTYPES)} can be read.'
      ' Use the unquantized release of the model.'
    )
  count = math.prod(shape[:17]) * DTYPES[dtype].itemsize
  fits = 0 <= begin <= end and end - begin == count and len(shape) < 17
  if not fits or min((0, *shape)) < 0:
    raise ValueError(
      f'{path}: {name!r} has {end - begin} bytes, and {dtype}{list(shape)}'
      f' takes {count}; download it again.'
    )
  if start + end > size:
    raise ValueError(
      f'{path}: cut off: {name!r} ends at byte {start + end:,} and the file at'
      f' {size:,}; download it again.'
    )
  return StoredTensor(
    path=path,
    name=name,
    dtype=DTYPES[dtype],
    shape=shape,
    offset=start + begin,
  )


def _whole(number: Any) -> int:
  if type(number) is not int or abs(number) >= 2**63:  # A bool is one, too.
    raise TypeError
  return number


@dataclasses.dataclass(frozen=True, kw_only=True)
class NewTensor:
  """Array to be written.

  Attributes:
    name: of the array.
    dtype: one of `DTYPES`.
    shape: as stored.
    make: returns the array; called when it is written.
  """

  name: str
  dtype: np.dtype[Any]
  shape: tuple[int, ...]
  make: Callable[[], np.ndarray]

  @property
  def num_bytes(self) -> int:
    """Size in bytes."""
    return math.prod(self.shape) * self.dtype.itemsize


def write_folder(
  folder: pathlib.Path, tensors: Iterable[NewTensor], max_bytes: int
) -> list[pathlib.Path]:
  """Paths of the files of weights, after writing them array by array.

  Args:
    folder: exists.
    tensors: in order of writing.
    max_bytes: of a file; a larger array has a file of its own.

  Returns:
    Paths without the index, which is written for more than one file.
  """
  shards: list[list[NewTensor]] = [[]]
  for tensor in tensors:
    held = sum(other.num_bytes for other in shards[-1])
    if shards[-1] and held + tensor.num_bytes > max_bytes:
      shards.append([])
    shards[-1].append(tensor)
  count = len(shards)
  paths = [folder / SINGLE]
  if count > 1:
    paths = [
      folder / f'model-{i + 1:05d}-of-{count:05d}.safetensors'
      for i in range(count)
    ]
  for path, shard in zip(paths, shards, strict=True):
    write_file(path, shard)
  if count > 1:
    index = {
      'metadata': {'total_size': sum(t.num_bytes for s in shards for t in s)},
      'weight_map': {
        tensor.name: path.name
        for path, shard in zip(paths, shards, strict=True)
        for tensor in shard
      },
    }
    json_files.write_json(folder / INDEX, index)
  return paths


def write_file(path: pathlib.Path, tensors: Sequence[NewTensor]) -> None:
  """Writes one file atomically."""
  header: dict[str, Any] = {_METADATA: {'format': 'pt'}}
  begin = 0
  for tensor in tensors:
    header[tensor.name] = {
      'dtype': _NAMES[tensor.dtype],
      'shape': list(tensor.shape),
      'data_offsets': [begin, begin + tensor.num_bytes],
    }
    begin += tensor.num_bytes
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % _PREFIX)  # Aligns the arrays.
  with open_atomically(path) as file:
    file.write(len(text).to_bytes(_PREFIX, 'little'))
    file.write(text)
    with activity.under_way(f'writing {path.name}') as note:
      for done, tensor in enumerate(tensors):
        note(f'{done} of {len(tensors)} tensors')
        array = np.ascontiguousarray(tensor.make(), tensor.dtype)
        if array.shape != tensor.shape:
          raise ValueError(
            f'{tensor.name}: made {array.shape}, announced {tensor.shape}.'
          )
        array.tofile(file)
