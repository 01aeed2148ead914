"""Published weights -> sharded parameters, read shard by shard."""

from collections.abc import Iterable, Mapping
import itertools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.base import Array, Params
from dppo_jax.gguf_files import header
from dppo_jax.gguf_files import tensors as gguf_tensors
from dppo_jax.runtime import activity
from dppo_jax.runtime.hub import safetensors_io
from dppo_jax.runtime.hub.safetensors_io import StoredTensor
from dppo_jax.runtime.hub.weight_map import Stack, stacks

# Read by slices, of one format or the other.
Tensor = StoredTensor | gguf_tensors.GGUFTensor
_SHOWN = 5
_EMBEDDING, _HEAD = 'model.embed_tokens.weight', 'lm_head.weight'
# Constants stored by older releases, which the model computes.
_COMPUTED = 'rotary_emb.inv_freq'


def open_tensors(source: pathlib.Path) -> Mapping[str, Tensor]:
  """Tensors by name; reads headers only.

  Args:
    source: folder of safetensors files, or a GGUF file.

  Raises:
    ValueError: it is missing, damaged or unsupported.
  """
  if header.is_file(source):
    return gguf_tensors.open_file(source)
  return safetensors_io.open_folder(source)


def load_params(folder: pathlib.Path, like: Params) -> Params:
  """Sharded parameters from a Hugging Face folder or a GGUF file.

  A host reads the shards of its own devices only. At most one shard of one
  parameter at a time is in host memory besides the arrays on devices.

  Args:
    folder: as of `open_tensors`.
    like: nested dict of `jax.ShapeDtypeStruct`, a sharding each; stored values
      are cast to its dtypes.

  Returns:
    The parameters.

  Raises:
    ValueError: tensors are missing, left over or of another shape, or a file
      is damaged.
  """
  return place_tensors(folder, like, open_tensors(folder))


def as_stored(folder: pathlib.Path, like: Params) -> Params:
  """Abstract parameters with their published dtypes.

  Args:
    folder: as of `open_tensors`.
    like: nested dict of `jax.ShapeDtypeStruct`.

  Returns:
    `like` in these dtypes; stacked tensors have the widest of theirs.

  Raises:
    ValueError: tensors are missing, left over or of another shape, or a file
      is damaged.
  """
  tensors = open_tensors(folder)
  check_tensors(folder, like, tensors)
  leaves = [
    leaf.update(
      dtype=jnp.result_type(*{tensors[n].dtype for n in stack.names.values()})
    )
    for leaf, stack in stacks(like)
  ]
  return jax.tree.unflatten(jax.tree.structure(like), leaves)


def place_tensors(
  folder: pathlib.Path, like: Params, tensors: Mapping[str, Tensor]
) -> Params:
  """As `load_params`, with tensors that are already opened."""
  check_tensors(folder, like, tensors)
  wanted = list(stacks(like))
  leaves = []
  with activity.under_way(f'loading weights from {folder}') as note:
    for leaf, stack in wanted:
      note(f'{len(leaves)} of {len(wanted)} arrays')
      leaves.append(_place(leaf, stack, tensors))
  return jax.tree.unflatten(jax.tree.structure(like), leaves)


def check_tensors(
  folder: pathlib.Path, like: Params, tensors: Mapping[str, Tensor]
) -> None:
  """Raises if the stored tensors are not those of the model.

  Args:
    folder: for the message.
    like: nested dict of anything with a shape.
    tensors: from `open_tensors`.

  Raises:
    ValueError: lists the differences.
  """
  wanted = {
    name: stack.shape
    for _, stack in stacks(like)
    for name in stack.names.values()
  }
  problems = [
    f'{folder}: lacks {name!r} {list(wanted[name])}'
    for name in wanted.keys() - tensors.keys()
  ]
  problems += [
    f'{tensors[name].path}: {name!r} {list(tensors[name].shape)} belongs to'
    ' nothing in the model'
    for name in tensors.keys() - wanted.keys()
    if not _is_harmless(name, tensors)
  ]
  problems += [
    f'{tensors[name].path}: {name!r} has shape {list(tensors[name].shape)} and'
    f' must have {list(shape)}'
    for name, shape in wanted.items()
    if name in tensors and tensors[name].shape != shape
  ]
  if problems:
    problems.sort()
    listed = '\n'.join(f'  {problem}' for problem in problems[:_SHOWN])
    more = len(problems) - _SHOWN
    raise ValueError(
      'The tensors are not those of the model that config.json describes:\n'
      f'{listed}\n'
      + (f'  … and {more} more\n' if more > 0 else '')
      + 'Use the config.json and the safetensors files of one release, all of'
      ' them; adapters are to be merged first.'
    )


def _is_harmless(name: str, tensors: Mapping[str, Tensor]) -> bool:
  """Whether an unused tensor is redundant."""
  if name.endswith(_COMPUTED):
    return True
  if name != _HEAD or _EMBEDDING not in tensors:
    return False
  # A tied head that was stored as well.
  head, embedding = tensors[_HEAD], tensors[_EMBEDDING]
  if (head.shape, head.dtype) != (embedding.shape, embedding.dtype):
    return False
  rows = max(1, 2**24 // max(1, head.shape[-1]))
  for low in range(0, head.shape[0], rows):
    part = slice(low, min(low + rows, head.shape[0]))
    index = (part, slice(None))
    shape = (part.stop - low, head.shape[1])
    one, other = np.empty(shape, head.dtype), np.empty(shape, head.dtype)
    head.read(head.shape, index, one)
    embedding.read(head.shape, index, other)
    if one.tobytes() != other.tobytes():
      return False
  return True


def _place(leaf: Any, stack: Stack, tensors: Mapping[str, Tensor]) -> Array:
  """Array built shard by shard; replicas are read once."""
  shards = leaf.sharding.addressable_devices_indices_map(leaf.shape)
  holders: dict[tuple[tuple[int, int], ...], list[Any]] = {}
  for device, index in shards.items():
    bounds = tuple(
      axis.indices(size)[:2]
      for axis, size in zip(index, leaf.shape, strict=True)
    )
    holders.setdefault(bounds, []).append(device)
  placed: list[Array] = []
  for bounds, devices in holders.items():
    shard = _read(leaf.dtype, stack, bounds, tensors)
    # Copied: a buffer owned by NumPy cannot be donated.
    placed += [jax.device_put(shard, d, may_alias=False) for d in devices]
    jax.block_until_ready(placed)
  return jax.make_array_from_single_device_arrays(
    leaf.shape, leaf.sharding, placed
  )


def _read(
  dtype: Any,
  stack: Stack,
  bounds: Iterable[tuple[int, int]],
  tensors: Mapping[str, Tensor],
) -> np.ndarray:
  """Part of a parameter within (begin, end) of each axis."""
  bounds = list(bounds)
  shard = np.empty([end - begin for begin, end in bounds], dtype)
  num_lead = len(bounds) - len(stack.order)
  lead, own = bounds[:num_lead], bounds[num_lead:]
  index = [slice(None)] * len(own)
  for axis, pair in zip(stack.order, own, strict=True):
    index[axis] = slice(*pair)
  # Axes of the shard in the order of the stored tensor.
  stored_order = [stack.order.index(axis) for axis in range(len(own))]
  for at in itertools.product(*(range(*pair) for pair in lead)):
    mine = tuple(i - begin for i, (begin, _) in zip(at, lead, strict=True))
    part = shard[mine].transpose(stored_order) if own else shard[mine]
    tensors[stack.names[at]].read(stack.view, index, part)
  return shard
