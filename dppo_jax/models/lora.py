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


def merge(params: AdaptedParams, dtype: Any = jnp.float32) -> Params:
  """The weights W + alpha / r · A B of a policy without an adapter.

  Args:
    params: base and adapter.
    dtype: of the adapted kernels; they are added in f32.

  Returns:
    As the base; the other weights keep their dtype.
  """
  base: dict[Any, Any] = flatten_dict(params.base)
  adapter: dict[Any, Any] = flatten_dict(params.adapter)
  for path, a in adapter.items():
    if path[-1] != 'lora_a':
      continue
    b = adapter[(*path[:-1], 'lora_b')]
    at = (*path[:-1], 'kernel')
    kernel = base[at]
    lead, inputs, outputs = _split(path[-2], kernel.shape)
    rank = a.shape[-1]
    flat = (math.prod(lead), math.prod(inputs), math.prod(outputs))

    def add(one: tuple[Array, Array, Array]) -> Array:
      kernel, a, b = one
      added = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
      return (kernel.astype(jnp.float32) + params.scale * added).astype(dtype)

    # A layer at a time: all of them in f32 would be the most of the memory.
    merged = jax.lax.map(
      add,
      (
        kernel.reshape(flat),
        a.reshape(flat[0], flat[1], rank),
        b.reshape(flat[0], rank, flat[2]),
      ),
    )
    base[at] = merged.reshape(kernel.shape)
  return unflatten_dict(base)


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
