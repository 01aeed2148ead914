"""One chunk of tokens against one device's columns of the vocabulary."""

from collections.abc import Callable
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dppo_jax.base import Array, TokenStats
from dppo_jax.ops import products
from dppo_jax.ops.log_probs import LOWEST_LOG_PROB
from dppo_jax.parallel import VocabularyAxes

# Columns an accelerator works on at once.
LANES = 128
# The logit of a column that pads the vocabulary. Finite: 0 times it is 0.
PADDING_LOGIT = -1e30


class Shard(NamedTuple):
  """The columns a device holds.

  Attributes:
    axes: the mesh.
    first: id of the first column, i32 [] or 0.
    held: columns held, padding of the last shard included.
    width: columns computed; `held`, on a sharded CPU rounded up to whole lanes.
      Elsewhere padding is a copy of the head and of its gradient.
    size: V.
  """

  axes: VocabularyAxes
  first: Array | int
  held: int
  width: int
  size: int

  @classmethod
  def of(cls, axes: VocabularyAxes, held: int, size: int) -> 'Shard':
    """Inside a `shard_map` over the mesh, or outside with one device."""
    lanes = LANES if axes.num_shards > 1 and _on_cpu(axes) else 1
    width = held + -held % lanes
    return cls(axes, axes.index() * held, held, width, size)

  @property
  def on_cpu(self) -> bool:
    """Whether the devices are CPUs, which need not be those that trace."""
    return _on_cpu(self.axes)

  def pad(self, head: Array) -> Array:
    """[held, D] -> [width, D]."""
    return jnp.pad(head, ((0, self.width - self.held), (0, 0)))

  def local(self, ids: Array) -> tuple[Array, Array]:
    """Columns of ids on this device, and whether they are here."""
    column = ids - self.first
    here = (column >= 0) & (column < self.held)
    return jnp.where(here, column, 0), here


def _on_cpu(axes: VocabularyAxes) -> bool:
  return axes.mesh.devices.flat[0].platform == 'cpu'


class Chunks(NamedTuple):
  """The tokens that count, C at a time; padding fills the last chunk only.

  Attributes:
    rows: i32 [whole chunks], flat position of each token that counts, in order
      of rows and then of time; the number of positions where there is no more.
      None where one chunk holds everything as it is.
    used: i32 [], chunks with a token in them.
    size: C.
  """

  rows: Array | None
  used: Array | int
  size: int

  @classmethod
  def of(cls, mask: Array, size: int) -> 'Chunks':
    """Chunks of at most `size` of the tokens of bool [B, R]."""
    total = mask.size
    if total <= size:
      return cls(None, 1, total)
    whole = math.ceil(total / size) * size
    (rows,) = jnp.nonzero(mask.reshape(-1), size=whole, fill_value=total)
    count = jnp.sum(mask, dtype=jnp.int32)
    return cls(rows.astype(jnp.int32), (count + size - 1) // size, size)

  def take(self, leaf: Array, index: Any) -> Array:
    """[B, R, ...] -> [C, ...], the tokens of a chunk; 0 where none are left."""
    flat = leaf.reshape(-1, *leaf.shape[2:])
    if self.rows is None:
      return flat
    return flat.at[self._positions(index)].get(mode='fill', fill_value=0)

  def put(self, buffer: Array, index: Any, values: Array) -> Array:
    """Writes [C, ...] where the tokens of a chunk stand in [B·R, ...]."""
    if self.rows is None:
      return values
    return buffer.at[self._positions(index)].set(values, mode='drop')

  @property
  def loop(self) -> Callable[[Callable[[Any, Any], Any], Any], Any]:
    """(body, carry) -> carry after body(index, carry) of all chunks in use."""
    if self.rows is None:
      return lambda body, carry: body(0, carry)
    return functools.partial(jax.lax.fori_loop, 0, self.used)

  def _positions(self, index: Any) -> Array:
    rows: Any = self.rows
    return jax.lax.dynamic_slice_in_dim(rows, index * self.size, self.size)


class ChunkStats(NamedTuple):
  """Results of a chunk's forward pass.

  Attributes:
    stats: TokenStats of [C]; the top log-probs are of the ids given.
    logits: f32 [C, width], divided by the temperature.
    others: f32 [C, width], exp(logits - largest), 0.0 at the token itself.
    own_below: f32 [C], logit - largest of the token itself; very low where it
      is no token of the vocabulary.
    rest: f32 [C], sum of `others` over the vocabulary.
    largest: f32 [C], of all devices.
    log_sum: f32 [C], log(own + rest), >= 0; own is exp(own_below).
    mean_below: f32 [C], mean of logits - largest under pi; None where the
      entropy is not computed.
  """

  stats: TokenStats
  logits: Array
  others: Array
  own_below: Array
  rest: Array
  largest: Array
  log_sum: Array
  mean_below: Array | None

  @property
  def own(self) -> Array:
    """exp(logit - largest) of the token itself, f32 [C]."""
    return jnp.exp(self.own_below)


class LogitGradient(NamedTuple):
  """dL/dz of a chunk: scale times columns, and `own` at the token itself.

  Attributes:
    columns: [C, width] of the dtype of the products, 0.0 at the token itself.
    scale: f32 [C], of rows; None where it is part of the columns.
    own: f32 [C], used by the device that holds the token.
  """

  columns: Array
  scale: Array | None
  own: Array


def max_over_columns(shard: Shard, x: Array) -> Array:
  """Largest of the columns of x [C, width] over all devices: [C]."""
  if shard.on_cpu and shard.width % LANES == 0:
    # A lane at a time: XLA reduces fast along a leading axis on a CPU.
    x = jnp.max(x.reshape(len(x), -1, LANES), axis=1)
  return shard.axes.reduce_max(jnp.max(x, axis=1))


def sum_over_columns(shard: Shard, x: Array) -> Array:
  """Sum over the columns of x [C, width], of this device: [C].

  A product with ones on a CPU. XLA would fuse a reduction with the arithmetic
  before it there, which takes twice as long as both one after the other.
  """
  if not shard.on_cpu:
    return jnp.sum(x, axis=1)
  return product(x, jnp.ones((shard.width,), x.dtype), 1, 0)


def put_at_token(shard: Shard, x: Array, tokens: Array, values: Array) -> Array:
  """x [C, width] with f32 [C] at each token's column, where it is here."""
  column, here = shard.local(tokens)
  if shard.on_cpu:
    # C elements. A select would pass over all of them; elsewhere it is part of
    # the pass that made them.
    column = jnp.where(here, column, shard.width)
    rows = jnp.arange(tokens.shape[0])
    return x.at[rows, column].set(values.astype(x.dtype), mode='drop')
  mine = here[:, None] & (jnp.arange(shard.width)[None] == column[:, None])
  return jnp.where(mine, values[:, None].astype(x.dtype), x)


def product(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
  """Matrix product over the named axes, accumulated in f32."""
  dimensions = (((a_axis,), (b_axis,)), ((), ()))
  return products.dot_general(a, b, dimensions)


def project(
  shard: Shard, weights: Array, x: Array, temperature: float
) -> Array:
  """Logits f32 [C, width] over the temperature, padding masked."""
  logits = product(x, weights, 1, 1)
  if temperature != 1.0:
    logits = logits / temperature
  if shard.width == shard.size:
    return logits
  column = jnp.arange(shard.width)
  real = (column < shard.held) & (column + shard.first < shard.size)
  return jnp.where(real, logits, PADDING_LOGIT)


def restrict(shard: Shard, logits: Array, support: Array | None) -> Array:
  """Logits f32 [C, width] with those outside the support as padding.

  Args:
    shard: the columns.
    logits: f32 [C, width].
    support: i32 [C, S], ids, -1 for none; None leaves them as they are.
  """
  if support is None:
    return logits
  column, here = shard.local(support)
  column = jnp.where(here, column, shard.width)
  rows = jnp.arange(logits.shape[0])[:, None]
  inside = jnp.zeros(logits.shape, bool).at[rows, column].set(True, mode='drop')
  return jnp.where(inside, logits, PADDING_LOGIT)


def chunk_stats(
  shard: Shard,
  weights: Array,
  x: Array,
  tokens: Array,
  ids: Array | None,
  temperature: float,
  *,
  with_entropy: bool,
  support: Array | None = None,
) -> ChunkStats:
  """Forward pass of a chunk: two reductions over the devices.

  Args:
    shard: the columns.
    weights: [width, D].
    x: [C, D].
    tokens: i32 [C].
    ids: i32 [C, K] or None, whose log-probs are wanted too.
    temperature: divides the logits.
    with_entropy: whether to compute the entropy.
    support: i32 [C, S], tokens that could be sampled; see `restrict`.
  """
  logits = project(shard, weights, x, temperature)
  logits = restrict(shard, logits, support)
  wanted = tokens[:, None]
  if ids is not None:
    wanted = jnp.concatenate([wanted, ids], axis=1)
  column, here = shard.local(wanted)
  gathered = jnp.where(here, jnp.take_along_axis(logits, column, 1), 0.0)

  largest = max_over_columns(shard, logits)
  below = logits - largest[:, None]
  # The token is left out of the sums and added after them: what the others
  # hold is then known to rounding however little it is, where 1 - p is not.
  others = put_at_token(shard, jnp.exp(below), tokens, jnp.zeros_like(largest))
  if shard.on_cpu:
    # Kept, and not computed again for the gradient: exp is most of the
    # elementwise work. Elsewhere memory bounds it.
    others = jax.lax.optimization_barrier(others)
  sums = [sum_over_columns(shard, others)]
  if with_entropy:
    sums.append(sum_over_columns(shard, others * below))
  packed = jnp.concatenate([jnp.stack(sums, axis=1), gathered], axis=1)
  packed = shard.axes.reduce_sum(packed)

  rest, found = packed[:, 0], packed[:, len(sums) :] - largest[:, None]
  inside = (wanted >= 0) & (wanted < shard.size)
  found = jnp.where(inside, found, LOWEST_LOG_PROB)
  own_below = found[:, 0]
  own = jnp.exp(own_below)
  total = own + rest
  log_sum = jnp.log(total)
  mean_below = None
  if with_entropy:
    mean_below = (packed[:, 1] + own * own_below) / total
  found = jnp.maximum(found - log_sum[:, None], LOWEST_LOG_PROB)
  stats = TokenStats(
    log_probs=found[:, 0],
    top_ids=ids,
    top_log_probs=None if ids is None else found[:, 1:],
    entropy=None if mean_below is None else log_sum - mean_below,
  )
  return ChunkStats(
    stats, logits, others, own_below, rest, largest, log_sum, mean_below
  )


def hidden_gradient(
  shard: Shard,
  d_logits: LogitGradient,
  weights: Array,
  head: Array,
  tokens: Array,
) -> Array:
  """dL/dx of a chunk over all devices: f32 [C, D].

  Half of the gradient of the logits is one column, the token itself. It enters
  by its row of the head and in f32: its rounding would not average out like
  that of the others, for tokens of one advantage and one probability round
  alike.

  Args:
    shard: the columns.
    d_logits: of `logit_gradient.py`.
    weights: [width, D].
    head: [held, D], what `weights` was cast from. The tokens' rows are of it:
      XLA has no gather of bf16 on a CPU and would widen all of `weights`.
    tokens: i32 [C].
  """
  d_x = product(d_logits.columns, weights, 1, 0)
  if d_logits.scale is not None:
    d_x = d_x * d_logits.scale[:, None]
  column, here = shard.local(tokens)
  own = head[column].astype(jnp.float32)
  d_x = d_x + jnp.where(here, d_logits.own, 0.0)[:, None] * own
  # Summed before it is cast: the parts of the devices cancel.
  return shard.axes.reduce_sum(d_x)


def add_head_gradient(
  shard: Shard,
  d_head: Array,
  d_logits: LogitGradient,
  x: Array,
  tokens: Array,
) -> Array:
  """Adds a chunk's dL/dW to f32 [width, D]; see `hidden_gradient`.

  Args:
    shard: the columns.
    d_head: of the chunks before.
    d_logits: of `logit_gradient.py`.
    x: [C, D].
    tokens: i32 [C].
  """
  wide = x.astype(jnp.float32)
  if d_logits.scale is not None:
    x = (wide * d_logits.scale[:, None]).astype(x.dtype)
    # Once, and not again for every tile of the product.
    x = jax.lax.optimization_barrier(x)
  d_head = d_head + product(d_logits.columns, x, 0, 0)
  column, here = shard.local(tokens)
  rows = jnp.where(here, column, shard.width)
  own = d_logits.own[:, None] * wide
  return d_head.at[rows].add(own, mode='drop')
