"""Names and layouts: parameters <-> tensors of published models.

Parameters are stacked over layers (and experts), with separate axes for heads,
as [inputs, outputs]. Published tensors are one matrix per layer, as [outputs,
inputs]. The same table serves loading and export.
"""

from collections.abc import Iterator
import dataclasses
import itertools
import math
from typing import Any

import jax

from dppo_jax.models.lora import TARGETS


@dataclasses.dataclass(frozen=True)
class TensorSpec:
  """Published tensor of a parameter.

  Attributes:
    template: its name; {layer} and {expert} are numbers.
    num_in: input axes of the parameter, which come last in the tensor.
    flat: the tensor has one axis for all output axes of the parameter.
  """

  template: str
  num_in: int
  flat: bool = True


_IN_BLOCK = 'layer_'  # Layer of a block, in models with two kinds of layers.
_LAYER = 'model.layers.{layer}.'
# Path of a parameter, within its layer if it has one -> its tensor.
TABLE = {
  'embedding': TensorSpec('model.embed_tokens.weight', 0, flat=False),
  'final_norm/scale': TensorSpec('model.norm.weight', 0),
  'head': TensorSpec('lm_head.weight', 0, flat=False),
  'score': TensorSpec(
    'score.weight', 0, flat=False
  ),  # Of a sequence classifier.
  'attention_norm/scale': TensorSpec(_LAYER + 'input_layernorm.weight', 0),
  'mlp_norm/scale': TensorSpec(_LAYER + 'post_attention_layernorm.weight', 0),
  'attention/query/kernel': TensorSpec(_LAYER + 'self_attn.q_proj.weight', 1),
  'attention/query/bias': TensorSpec(_LAYER + 'self_attn.q_proj.bias', 0),
  'attention/key/kernel': TensorSpec(_LAYER + 'self_attn.k_proj.weight', 1),
  'attention/key/bias': TensorSpec(_LAYER + 'self_attn.k_proj.bias', 0),
  'attention/value/kernel': TensorSpec(_LAYER + 'self_attn.v_proj.weight', 1),
  'attention/value/bias': TensorSpec(_LAYER + 'self_attn.v_proj.bias', 0),
  'attention/output/kernel': TensorSpec(_LAYER + 'self_attn.o_proj.weight', 2),
  'attention/query_norm/scale': TensorSpec(
    _LAYER + 'self_attn.q_norm.weight', 0
  ),
  'attention/key_norm/scale': TensorSpec(_LAYER + 'self_attn.k_norm.weight', 0),
  'mlp/gate/kernel': TensorSpec(_LAYER + 'mlp.gate_proj.weight', 1),
  'mlp/up/kernel': TensorSpec(_LAYER + 'mlp.up_proj.weight', 1),
  'mlp/down/kernel': TensorSpec(_LAYER + 'mlp.down_proj.weight', 1),
  'mlp/router/kernel': TensorSpec(_LAYER + 'mlp.gate.weight', 1),
  'mlp/experts/gate/kernel': TensorSpec(
    _LAYER + 'mlp.experts.{expert}.gate_proj.weight', 1
  ),
  'mlp/experts/up/kernel': TensorSpec(
    _LAYER + 'mlp.experts.{expert}.up_proj.weight', 1
  ),
  'mlp/experts/down/kernel': TensorSpec(
    _LAYER + 'mlp.experts.{expert}.down_proj.weight', 1
  ),
}
_ADAPTED = 'base_model.model.'  # PEFT's prefix of every name.


def _adapter_rows() -> Iterator[tuple[str, TensorSpec]]:
  for path, row in TABLE.items():
    part, _, leaf = path.rpartition('/')
    if leaf == 'kernel' and part.rpartition('/')[2] in TARGETS:
      name = _ADAPTED + row.template.removesuffix('weight')
      yield f'{part}/lora_a', TensorSpec(f'{name}lora_A.weight', row.num_in)
      yield f'{part}/lora_b', TensorSpec(f'{name}lora_B.weight', 1)


TABLE |= dict(_adapter_rows())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stack:
  """Stored tensors that a parameter stacks.

  Attributes:
    path: of the parameter, joined by '/'.
    names: of the tensors, by index of the parameter's leading axes.
    shape: of each tensor.
    view: `shape` split into the parameter's axes, outputs first.
    order: axis of `view` for each axis of the parameter.
  """

  path: str
  names: dict[tuple[int, ...], str]
  shape: tuple[int, ...]
  view: tuple[int, ...]
  order: tuple[int, ...]


def stacks(params: Any) -> Iterator[tuple[Any, Stack]]:
  """Parameters with their stored tensors.

  Args:
    params: nested dict of anything with a shape.

  Yields:
    (the leaf, its Stack), in the order of the tree.
  """
  kinds = [name for name in params['layers'] if name.startswith(_IN_BLOCK)]
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    keys = tuple(key.key for key in path)
    yield leaf, _stack(keys, tuple(leaf.shape), max(1, len(kinds)))


def _stack(keys: tuple[str, ...], shape: tuple[int, ...], period: int) -> Stack:
  below = keys[1:] if keys[0] == 'layers' else keys
  offset = 0
  if below[0].startswith(_IN_BLOCK):
    offset, below = int(below[0].removeprefix(_IN_BLOCK)), below[1:]
  row = TABLE['/'.join(below)]
  num_lead = ('{layer}' in row.template) + ('{expert}' in row.template)
  lead, own = shape[:num_lead], shape[num_lead:]
  inputs, outputs = own[: row.num_in], own[row.num_in :]
  stored = outputs
  if row.flat:
    stored = (math.prod(outputs), *([math.prod(inputs)] if inputs else ()))
  names = {}
  for index in itertools.product(*map(range, lead)):
    numbers = dict(zip(('layer', 'expert'), index, strict=False))
    if numbers:
      numbers['layer'] = numbers['layer'] * period + offset
    names[index] = row.template.format(**numbers)
  axes = range(len(own))
  return Stack(
    path='/'.join(keys),
    names=names,
    shape=stored,
    view=outputs + inputs,
    order=tuple((i - row.num_in) % len(own) for i in axes),
  )
