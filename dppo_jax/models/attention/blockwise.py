"""Attention by blocks in plain JAX: an online softmax that holds no scores.

For every block of queries a loop runs over the blocks of keys that some of
them see; padding, the future and other segments cost nothing beyond whole
blocks. The backward pass computes the blocks again from the saved log-sum-exp
(FlashAttention, arXiv:2205.14135; its second form, arXiv:2307.08691, for the
order of the loops).
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dppo_jax.base import Array
from dppo_jax.models.attention.key_ranges import Ranges, key_ranges
from dppo_jax.models.attention.sources import (
  HIDDEN_SCORE,
  LEAST_SCORE,
  KeySource,
  sees,
)
from dppo_jax.ops import products

_ROWS, _COLUMNS = 0, 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blocks:
  """Sizes of what is computed at once.

  Attributes:
    rows: of queries, 1 or all B. One at a time skips the blocks of each row; a
      batch that the compiler shards must run all at once.
    queries: at most, of a row.
    keys: at most, of a row.
  """

  rows: int
  queries: int
  keys: int


# Of a source, what the compiled loops know: is_causal, and its block of keys.
_Static = tuple[tuple[tuple[bool, int], ...], int, int]
# Keys and values [E or L E, kv_heads, S, head_dim], segments of keys [E, S] and
# of queries [B, Q], and the first entry of a layer or None.
_Arrays = tuple[tuple[Array, Array, Array, Array, Array | None], ...]


def attend(query: Array, sources: Sequence[KeySource], blocks: Blocks) -> Array:
  """softmax(q k / sqrt(head_dim)) v over all sources together.

  Args:
    query: [B, Q, H, head_dim].
    sources: what it sees.
    blocks: sizes; a length need not be a multiple of them.

  Returns:
    [B, Q, H, head_dim]; zeros where a query sees no key.
  """
  rows, width = query.shape[:2]
  static = (
    tuple((s.is_causal, min(blocks.keys, s.shape[2])) for s in sources),
    blocks.rows,
    min(blocks.queries, width),
  )
  arrays = tuple(
    (
      s.keys.reshape(-1, *s.shape[1:]),
      s.values.reshape(-1, *s.shape[1:]),
      jnp.broadcast_to(s.key_segments, (s.shape[0], s.shape[2])),
      jnp.broadcast_to(s.query_segments, (rows, width)),
      None if s.layer is None else s.layer * s.shape[0],
    )
    for s in sources
  )
  mixed: Array = _attend(static, query, arrays)
  return mixed


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(static: _Static, query: Array, arrays: _Arrays) -> Array:
  return _forward(static, query, arrays)[0]


def _forward(
  static: _Static, query: Array, arrays: _Arrays
) -> tuple[Array, Any]:
  rows, width, heads, _ = query.shape
  loop = _Loop.of(static, query, arrays)

  def run(number: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
    mixed, log_sums = carry
    place = loop.place(number)
    block = loop.queries(query, place) * query.shape[-1] ** -0.5
    block = block.astype(query.dtype)
    shape = block.shape[:-1]
    state = (
      jnp.full(shape, LEAST_SCORE, jnp.float32),
      jnp.zeros(shape, jnp.float32),
      jnp.zeros(block.shape, jnp.float32),
    )
    for source in range(len(arrays)):
      step = functools.partial(loop.accumulate, source, place, block)
      state = loop.over_keys(source, number, step, state)
    most, total, summed = state
    some = jnp.where(total == 0.0, 1.0, total)
    out = (summed / some[..., None]).astype(query.dtype)
    # Of a query that sees nothing, so large that its weights are 0.
    log_sum = jnp.where(total == 0.0, -HIDDEN_SCORE, most + jnp.log(some))
    return (
      loop.put(mixed, out, place),
      loop.put(log_sums, log_sum[..., None], place),
    )

  empty = (
    jnp.zeros(query.shape, query.dtype),
    jnp.zeros((rows, width, heads, 1), jnp.float32),
  )
  mixed, log_sums = jax.lax.fori_loop(0, loop.count, run, empty)
  return mixed, (query, arrays, mixed, log_sums)


def _backward(
  static: _Static, saved: Any, cotangent: Array
) -> tuple[Array, Any]:
  query, arrays, mixed, log_sums = saved
  loop = _Loop.of(static, query, arrays)
  scale = query.shape[-1] ** -0.5

  def run(number: Array, carry: Any) -> Any:
    gradient, pairs = carry
    place = loop.place(number)
    block = (loop.queries(query, place) * scale).astype(query.dtype)
    pulled = loop.queries(cotangent, place)
    out = loop.queries(mixed, place)
    log_sum = loop.queries(log_sums, place)
    mean = jnp.sum(
      out.astype(jnp.float32) * pulled.astype(jnp.float32), -1, keepdims=True
    )
    own = jnp.zeros(block.shape, jnp.float32)
    new = []
    for source, pair in enumerate(pairs):
      step = functools.partial(
        loop.pull, source, place, block, pulled, log_sum, mean
      )
      own, pair = loop.over_keys(source, number, step, (own, pair))
      new.append(pair)
    own = (own * scale).astype(query.dtype)
    return loop.put(gradient, own, place), tuple(new)

  zeros = jnp.zeros(query.shape, query.dtype)
  pairs = tuple(
    (jnp.zeros(keys.shape, jnp.float32), jnp.zeros(values.shape, jnp.float32))
    for keys, values, *_ in arrays
  )
  gradient, pairs = jax.lax.fori_loop(0, loop.count, run, (zeros, pairs))
  return gradient, tuple(
    (dk.astype(keys.dtype), dv.astype(values.dtype), None, None, None)
    for (dk, dv), (keys, values, *_) in zip(pairs, arrays, strict=True)
  )


_attend.defvjp(_forward, _backward)


class _Place(NamedTuple):
  """A block of queries: first row, first column, and the columns to count.

  The last block begins earlier where its size does not divide the length; the
  columns that it shares with the one before do not count again.
  """

  row: Array
  column: Array
  counts: Array


@dataclasses.dataclass(frozen=True)
class _Loop:
  """The loops over blocks, forward and backward."""

  arrays: _Arrays
  is_causal: tuple[bool, ...]
  key_blocks: tuple[int, ...]
  rows: int
  width: int
  num_query_blocks: int
  count: int
  ranges: tuple[Ranges, ...]

  @classmethod
  def of(cls, static: _Static, query: Array, arrays: _Arrays) -> '_Loop':
    kinds, rows, width = static
    num_blocks = -(-query.shape[1] // width)
    num_chunks = query.shape[0] // rows
    return cls(
      arrays=arrays,
      is_causal=tuple(is_causal for is_causal, _ in kinds),
      key_blocks=tuple(size for _, size in kinds),
      rows=rows,
      width=width,
      num_query_blocks=num_blocks,
      count=num_chunks * num_blocks,
      ranges=tuple(
        key_ranges(seen, sought, rows, width, size, is_causal)
        for (_, _, seen, sought, _), (is_causal, size) in zip(
          arrays, kinds, strict=True
        )
      ),
    )

  def place(self, number: Array) -> _Place:
    chunk, block = jnp.divmod(number, self.num_query_blocks)
    nominal = block * self.width
    length = self.arrays[0][3].shape[1]
    column = jnp.minimum(nominal, length - self.width)
    return _Place(
      row=chunk * self.rows,
      column=column,
      counts=column + jnp.arange(self.width) >= nominal,
    )

  def queries(self, x: Array, place: _Place) -> Array:
    """Of [B, Q, H, D], the block [rows, kv_heads, H / kv_heads, q, D]."""
    kv_heads = self.arrays[0][0].shape[1]
    _, _, heads, depth = x.shape
    block = jax.lax.dynamic_slice(
      x,
      (place.row, place.column, 0, 0),
      (self.rows, self.width, heads, depth),
    )
    block = block.reshape(self.rows, self.width, kv_heads, -1, depth)
    return jnp.transpose(block, (0, 2, 3, 1, 4))

  def put(self, x: Array, block: Array, place: _Place) -> Array:
    """Undoes `queries`."""
    block = jnp.transpose(block, (0, 3, 1, 2, 4))
    block = block.reshape(self.rows, self.width, *x.shape[2:])
    at = (place.row, place.column, 0, 0)
    if x.shape[1] % self.width:
      old = jax.lax.dynamic_slice(x, at, block.shape)
      counts = jnp.reshape(place.counts, (1, -1, 1, 1))
      block = jnp.where(counts, block, old)
    return jax.lax.dynamic_update_slice(x, block, at)

  def over_keys(self, source: int, number: Array, step: Any, state: Any) -> Any:
    """Runs `step(key block, state)` over the blocks of keys that are seen."""
    size, length = self.key_blocks[source], self.arrays[source][0].shape[2]
    if self.width == 1 and size == length:
      return step(jnp.zeros((), jnp.int32), state)
    ranges = self.ranges[source]
    turns = -(-length // size)
    if self.is_causal[source]:
      turns = (turns + 2) // 2  # Their mean, rounded up.
    # For a reader of the compiled program, which knows no bound.
    with jax.named_scope(f'about_{turns}_turns'):
      return jax.lax.fori_loop(
        ranges.begin[number], ranges.end[number], step, state
      )

  def accumulate(
    self, source: int, place: _Place, block: Array, number: Array, state: Any
  ) -> Any:
    """Maximum, sum and summed values after one more block of keys."""
    most, total, summed = state
    _, values, _ = self._keys(source, place, number)
    scores = self._scores(source, place, block, number)
    above = jnp.maximum(most, jnp.max(scores, axis=-1))
    shrink = jnp.exp(most - above)
    weights = jnp.exp(scores - above[..., None])
    total = total * shrink + jnp.sum(weights, axis=-1)
    more = self._product(
      'erkhqs,eksd->erkhqd', weights.astype(values.dtype), values
    )
    return above, total, summed * shrink[..., None] + more

  def pull(
    self,
    source: int,
    place: _Place,
    block: Array,
    pulled: Array,
    log_sum: Array,
    mean: Array,
    number: Array,
    state: Any,
  ) -> Any:
    """Gradients of queries, keys and values after one more block of keys."""
    own, (key_gradient, value_gradient) = state
    keys, values, at = self._keys(source, place, number)
    scores = self._scores(source, place, block, number)
    weights = jnp.exp(scores - log_sum)
    counts = jnp.reshape(place.counts, (1, 1, 1, -1, 1))
    weights = jnp.where(counts, weights, 0.0)
    pulled = pulled.astype(values.dtype)
    of_weights = self._product('erkhqd,eksd->erkhqs', pulled, values)
    of_scores = (weights * (of_weights - mean)).astype(keys.dtype)
    own = own + self._product('erkhqs,eksd->erkhqd', of_scores, keys)

    def add(total: Array, weights: Array, block: Array) -> Array:
      entries = keys.shape[0]
      more = products.dot_general(
        _by_entry(weights, entries),
        _by_entry(block, entries),
        (((1, 3, 4), (1, 3, 4)), ((0, 2), (0, 2))),
      )
      old = jax.lax.dynamic_slice(total, at, more.shape)
      return jax.lax.dynamic_update_slice(total, old + more, at)

    key_gradient = add(key_gradient, of_scores, block)
    weights = weights.astype(values.dtype)
    value_gradient = add(value_gradient, weights, pulled)
    return own, (key_gradient, value_gradient)

  def _entries(self, source: int, place: _Place) -> tuple[Array, int]:
    """First entry of the rows, and how many."""
    _, _, seen, sought, _ = self.arrays[source]
    share = sought.shape[0] // seen.shape[0]
    return place.row // share, max(1, self.rows // share)

  def _keys(
    self, source: int, place: _Place, number: Array
  ) -> tuple[Array, Array, tuple[Array, ...]]:
    """Keys and values of a block, and where they stand."""
    keys, values, _, _, first = self.arrays[source]
    size = self.key_blocks[source]
    entry, entries = self._entries(source, place)
    zero = jnp.zeros_like(entry)
    entry = entry if first is None else entry + first
    column = jnp.minimum(number * size, keys.shape[_COLUMNS] - size)
    at = (entry, zero, column.astype(entry.dtype), zero)

    def take(x: Array) -> Array:
      shape = (entries, x.shape[1], size, x.shape[3])
      return jax.lax.dynamic_slice(x, at, shape)

    return take(keys), take(values), at

  def _scores(
    self, source: int, place: _Place, block: Array, number: Array
  ) -> Array:
    """Masked scores f32 [rows, kv_heads, H / kv_heads, q, s]."""
    _, _, seen, sought, _ = self.arrays[source]
    size = self.key_blocks[source]
    keys, _, (_, _, column, _) = self._keys(source, place, number)
    entry, entries = self._entries(source, place)
    seen = jax.lax.dynamic_slice(seen, (entry, column), (entries, size))
    sought = jax.lax.dynamic_slice(
      sought, (place.row, place.column), (self.rows, self.width)
    )
    sought = sought.reshape(entries, -1, self.width)
    mask = sees(sought[..., None], seen[:, None, None])
    columns = column + jnp.arange(size)
    # The last block begins earlier where its size does not divide the length.
    inside = columns >= number * size
    inside = jnp.broadcast_to(inside[None], (self.width, size))
    if self.is_causal[source]:
      rows = place.column + jnp.arange(self.width)
      inside &= columns[None] <= rows[:, None]
    mask &= inside[None, None]
    scores = self._product('erkhqd,eksd->erkhqs', block, keys)
    mask = mask.reshape(self.rows, 1, 1, self.width, size)
    return jnp.where(mask, scores, HIDDEN_SCORE)

  def _product(self, spec: str, block: Array, keys: Array) -> Array:
    """Of [rows, …] and the entries that the rows share, f32 [rows, …]."""
    product = products.einsum_f32(spec, _by_entry(block, keys.shape[0]), keys)
    return product.reshape(self.rows, *product.shape[2:])


def _by_entry(block: Array, entries: int) -> Array:
  """[rows, …] -> [entries, rows / entries, …]."""
  return block.reshape(entries, -1, *block.shape[1:])
