"""Tensors of a GGUF file under the names and in the order of Hugging Face.

Quantized ones are dequantized as they are read, to float32. Files of the Llama
architecture have the rows of queries and keys in another order: theirs rotates
neighbors (2j, 2j + 1) of a head, and ours j and j + d/2.
"""

from collections.abc import Sequence
import dataclasses
import functools
import math
import pathlib
import re
from typing import Any

import ml_dtypes
import numpy as np

from dppo_jax.gguf_files import header as header_lib
from dppo_jax.gguf_files import shapes

_CHUNK = 32 * 2**20  # Bytes of float32 made at a time.
# Kinds whose bytes are the numbers.
_PLAIN = {
  'F32': np.dtype(np.float32),
  'F16': np.dtype(np.float16),
  'BF16': np.dtype(ml_dtypes.bfloat16),
}
_NAMES = {
  'token_embd.weight': 'model.embed_tokens.weight',
  'output_norm.weight': 'model.norm.weight',
  'output.weight': 'lm_head.weight',
}
_LAYER = re.compile(r'blk\.(\d{1,6})\.(\w+)\.(weight|bias)')
_IN_LAYER = {
  'attn_norm': 'input_layernorm',
  'ffn_norm': 'post_attention_layernorm',
  'attn_q': 'self_attn.q_proj',
  'attn_k': 'self_attn.k_proj',
  'attn_v': 'self_attn.v_proj',
  'attn_output': 'self_attn.o_proj',
  'attn_q_norm': 'self_attn.q_norm',
  'attn_k_norm': 'self_attn.k_norm',
  'ffn_gate': 'mlp.gate_proj',
  'ffn_up': 'mlp.up_proj',
  'ffn_down': 'mlp.down_proj',
}
_ROTATED = ('attn_q', 'attn_k')


@dataclasses.dataclass(frozen=True, kw_only=True)
class GGUFTensor:
  """Tensor in a GGUF file, not read yet.

  Attributes:
    path: of the file.
    entry: where it lies.
    dtype: as read: float32 where it is quantized.
    num_heads: heads whose rows are in the other order; 0: none are.
  """

  path: pathlib.Path
  entry: header_lib.Entry
  dtype: np.dtype[Any]
  num_heads: int

  @property
  def shape(self) -> tuple[int, ...]:
    """As in a Hugging Face folder."""
    return self.entry.shape

  def read(
    self, view: Sequence[int], index: Sequence[slice], out: np.ndarray
  ) -> None:
    """Copies a part into `out`, cast to its dtype, a few rows at a time.

    Args:
      view: shape to which the tensor is reshaped; a new axis does not mix rows
        with what is within a row.
      index: one slice per axis of `view`, of step 1.
      out: output, of the shape of the part.

    Raises:
      ValueError: the file was truncated meanwhile.
    """
    if len(self.shape) == 1:  # Norms and biases.
      whole = self._rows(0, 1).reshape(-1)
      out[...] = whole[self._order()].reshape(view)[tuple(index)]
      return
    first, *others = index
    begin, end, _ = first.indices(view[0])
    rows = math.prod(self.shape[:-1]) // view[0]  # An entry of the first axis.
    step = max(1, _CHUNK // (4 * rows * self.shape[-1]))
    order = self._order()
    for low in range(begin, end, step):
      high = min(end, low + step)
      wanted = order[low * rows : high * rows]
      least = int(wanted.min())
      read = self._rows(least, int(wanted.max()) + 1)
      part = read[wanted - least].reshape(high - low, *view[1:])
      out[low - begin : high - begin] = part[(slice(None), *others)]

  def _order(self) -> np.ndarray:
    """Row in the file for each row here: i64 [rows]."""
    one_axis = len(self.shape) == 1
    rows = self.shape[0] if one_axis else math.prod(self.shape[:-1])
    order = np.arange(rows)
    if not self.num_heads:
      return order
    # Within a head, row (half, j) here is row (j, half) there.
    return order.reshape(self.num_heads, -1, 2).swapaxes(1, 2).reshape(-1)

  def _rows(self, begin: int, end: int) -> np.ndarray:
    """Rows as stored, [end - begin, columns]."""
    entry = self.entry
    count = (end - begin) * entry.row_bytes
    with self.path.open('rb') as file:
      file.seek(entry.offset + begin * entry.row_bytes)
      read = np.fromfile(file, np.uint8, count)
    if read.size < count:
      raise ValueError(
        f'{self.path}: ends within {entry.name!r}; it changed while it was'
        ' read. Copy it again.'
      )
    read = read.reshape(end - begin, entry.row_bytes)
    if entry.kind in _PLAIN:
      return read.view(_PLAIN[entry.kind])
    gguf = header_lib.library(self.path)
    with np.errstate(all='ignore'):  # Scales may be anything.
      return gguf.dequantize(read, gguf.GGMLQuantizationType[entry.kind])


def open_file(path: pathlib.Path) -> dict[str, GGUFTensor]:
  """Tensors of a file by their names in a Hugging Face folder.

  Args:
    path: of the file; only its header is read.

  Raises:
    ValueError: the file is damaged, or a tensor is of an unsupported kind or
      belongs to nothing in the model.
  """
  header = header_lib.read(path)
  config = shapes.config_json(header)
  heads = {
    'attn_q': config['num_attention_heads'],
    'attn_k': config['num_key_value_heads'],
  }
  tensors = {}
  for name, entry in header.tensors.items():
    if name == shapes.ROPE_FACTORS:
      continue  # `shapes` reads them.
    here, part = _renamed(path, name)
    if entry.kind not in _PLAIN and not _can_read(path, entry.kind):
      raise ValueError(
        f'{path}: {name!r} is quantized as {entry.kind}, which the package gguf'
        ' does not dequantize; take another release, such as Q8_0 or Q4_K_M.'
      )
    rotated = config['model_type'] == 'llama' and part in _ROTATED
    if rotated and math.prod(entry.shape[:1]) % (2 * heads[part]):
      raise ValueError(
        f'{path}: {name!r} has {entry.shape[0]} rows, which are no pairs in'
        f' {heads[part]} heads; take another release.'
      )
    tensors[here] = GGUFTensor(
      path=path,
      entry=entry,
      dtype=_PLAIN[entry.kind] if entry.kind in _PLAIN else np.dtype('f4'),
      num_heads=heads[part] if rotated else 0,
    )
  return tensors


def _renamed(path: pathlib.Path, name: str) -> tuple[str, str]:
  """Name in a Hugging Face folder, and the part of a layer that it is."""
  if name in _NAMES:
    return _NAMES[name], ''
  found = _LAYER.fullmatch(name)
  if not found or found[2] not in _IN_LAYER:
    raise ValueError(
      f'{path}: the tensor {name[:80]!r} belongs to nothing in a Llama, Qwen2'
      ' or Qwen3 model; take another release of the model.'
    )
  here = f'model.layers.{int(found[1])}.{_IN_LAYER[found[2]]}.{found[3]}'
  return here, found[2]


@functools.cache
def _can_read(path: pathlib.Path, kind: str) -> bool:
  """Whether the package dequantizes a kind, found by one block of zeros."""
  gguf = header_lib.library(path)
  number = gguf.GGMLQuantizationType[kind]
  zeros = np.zeros((1, gguf.GGML_QUANT_SIZES[number][1]), np.uint8)
  try:
    with np.errstate(all='ignore'):
      gguf.dequantize(zeros, number)
  except NotImplementedError:
    return False
  return True
