"""Low-rank adapters (LoRA, arXiv:2106.09685): W x + alpha / r · B (A x).

The base W is frozen; A and B train. An adapter is a tree of its own, beside
that of the base and shaped like it, so that what trains is all that is
differentiated, optimized and saved.
"""

import dataclasses
import math
from typing import Any
import zlib

import flax.linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import jax.numpy as jnp

from dppo_jax.base import Array, Params
from dppo_jax.models.policy import AdaptedParams, Policy
from dppo_jax.ops import products

# Projection -> (its published name, how many axes of its kernel are inputs).
TARGETS = {
  'query': ('q_proj', 1),
  'key': ('k_proj', 1),
  'value': ('v_proj', 1),
  'output': ('o_proj', 2),
  'gate': ('gate_proj', 1),
  'up': ('up_proj', 1),
  'down': ('down_proj', 1),
}
# Those of attention, the only ones where other layers have experts.
ATTENTION_TARGETS = ('query', 'key', 'value', 'output')


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
  """Shape of an adapter.

  Attributes:
    rank: r.
    alpha: the product B A is scaled by alpha / r.
    targets: keys of `TARGETS`.
  """

  rank: int
  alpha: float
  targets: tuple[str, ...]

  @property
  def scale(self) -> float:
    """alpha / r."""
    return self.alpha / self.rank


def adapt(policy: Policy, config: LoraConfig) -> Policy:
  """The same policy, whose `init` makes what trains: an adapter.

  Its other functions take `AdaptedParams`, or those of the base alone.
  """

  def init(key: Array) -> Any:
    return init_adapter(config, jax.eval_shape(policy.init, key), key)

  return policy._replace(init=init)


def init_adapter(config: LoraConfig, boxed: Any, key: Array) -> Any:
  """A new adapter, which changes nothing: B is zero.

  A is uniform within 1 / sqrt(inputs), as PEFT draws it.

  Args:
    config: its shape.
    boxed: parameters of the base, or their shapes, with logical axis names.
    key: PRNG key.

  Returns:
    Nested dict of f32 `lora_a` [(L,) inputs…, r] and `lora_b` [(L,) r,
    outputs…] where the base has a target's kernel, with logical axis names: A
    is laid out like the inputs of its kernel, B like the outputs.
  """
  adapter: dict[tuple[str, ...], Any] = {}
  flat: dict[Any, Any] = flatten_dict(boxed)
  for path, box in flat.items():
    if path[-1] != 'kernel' or path[-2] not in config.targets:
      continue
    if 'experts' in path:
      continue
    lead, inputs, outputs = _split(path[-2], box.names)
    sizes = _split(path[-2], box.value.shape)
    bound = 1 / math.sqrt(math.prod(sizes[1]))
    own_key = jax.random.fold_in(key, zlib.crc32('/'.join(path).encode()))
    a = jax.random.uniform(
      own_key,
      (*sizes[0], *sizes[1], config.rank),
      jnp.float32,
      -bound,
      bound,
    )
    b = jnp.zeros((*sizes[0], config.rank, *sizes[2]), jnp.float32)
    for name, value, names in (
      ('lora_a', a, (*lead, *inputs, 'rank')),
      ('lora_b', b, (*lead, 'rank', *outputs)),
    ):
      box = nn.LogicallyPartitioned(value, names)
      adapter[(*path[:-1], name)] = box
  return unflatten_dict(adapter)


@dataclasses.dataclass(frozen=True)
class MergedKernel:
  """W + alpha / r · A B, added in f32 where it is indexed and no sooner.

  A model as large as memory can be written a layer at a time.

  Attributes:
    target: which projection.
    kernel: W, stacked over layers.
    a: A, stacked alike.
    b: B, stacked alike.
    scale: alpha / r.
  """

  target: str
  kernel: Array
  a: Array
  b: Array
  scale: float

  @property
  def shape(self) -> tuple[int, ...]:
    """That of the kernel."""
    return tuple(self.kernel.shape)

  def __getitem__(self, at: Any) -> Array:
    """The kernel of one layer, or of several."""
    kernel, a, b = self.kernel[at], self.a[at], self.b[at]
    lead, inputs, outputs = _split(self.target, kernel.shape)
    added = products.matmul(
      a.reshape(*lead, math.prod(inputs), a.shape[-1]),
      b.reshape(*lead, a.shape[-1], math.prod(outputs)),
    )
    return kernel.astype(jnp.float32) + self.scale * added.reshape(kernel.shape)


def merge_lazily(params: AdaptedParams) -> Params:
  """The weights of a policy without an adapter: as the base.

  Adapted kernels are `MergedKernel`s.
  """
  base: dict[Any, Any] = flatten_dict(params.base)
  adapter: dict[Any, Any] = flatten_dict(params.adapter)
  for path, a in adapter.items():
    if path[-1] != 'lora_a':
      continue
    at = (*path[:-1], 'kernel')
    b = adapter[(*path[:-1], 'lora_b')]
    base[at] = MergedKernel(path[-2], base[at], a, b, params.scale)
  return unflatten_dict(base)


def merge(params: AdaptedParams) -> Params:
  """The same as arrays; adapted kernels are f32, the others as they were."""

  def whole(leaf: Any) -> Array:
    return leaf[...] if isinstance(leaf, MergedKernel) else leaf

  return jax.tree.map(whole, merge_lazily(params))


def _split(
  target: str, axes: tuple[Any, ...]
) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]:
  """Axes of a kernel: of layers, of inputs, of outputs."""
  num_in = TARGETS[target][1]
  # A kernel of attention has three axes, of a feed-forward layer two.
  num_own = 3 if target in ATTENTION_TARGETS else 2
  first = len(axes) - num_own
  end = first + num_in
  return axes[:first], axes[first:end], axes[end:]
