"""Rows without the columns that none of them fills.

Completions are as wide as the limit R, and most end long before it. A part of
the rows is run at the least of a few widths that holds its longest row, all
compiled into one program. Rows that are run in several parts are ordered by
length first, so that like lengths share a part.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from dppo_jax.base import Array

T = TypeVar('T')


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthBuckets:
  """Widths that completions are run at.

  Attributes:
    count: of widths, evenly spaced up to R; 1 runs every part at R.
    multiple: of columns that widths are rounded up to; divides R. So many
      devices split the columns of a row.
    prompt_length: P.
    group_size: G, rows of a prompt, which adjoin.
    shared_rows: rows whose prompt is run once, and which stay together; divides
      the group.
    by_length: whether rows may be ordered. Statistics of a part, such as the
      load of experts, would change with the rows in it.
  """

  count: int
  multiple: int
  prompt_length: int
  group_size: int
  shared_rows: int
  by_length: bool

  def widths(self, num_columns: int) -> tuple[int, ...]:
    """Widths up to R, in rising order.

    Args:
      num_columns: R.
    """
    count, multiple = self.count, self.multiple
    evenly = (-(-num_columns * i // count) for i in range(1, count + 1))
    return tuple(sorted({-(-width // multiple) * multiple for width in evenly}))

  def lengths(self, token_mask: Array) -> Array:
    """Completion columns up to the last token of each row: i32 [B].

    Args:
      token_mask: bool [B, P + R].
    """
    mask = token_mask[:, self.prompt_length :]
    columns = jnp.arange(1, mask.shape[1] + 1, dtype=jnp.int32)
    return jnp.max(jnp.where(mask, columns, 0), axis=1)

  @property
  def reorders(self) -> bool:
    """Whether `order` is more than the order that rows are in."""
    return self.count > 1 and self.by_length

  def order(self, token_mask: Array) -> Array:
    """Numbers of the rows by length, as far as prompts are shared: i32 [B].

    First within each group, then so many rows at once as share a prompt.

    Args:
      token_mask: bool [B, P + R].
    """
    lengths = self.lengths(token_mask).reshape(-1, self.group_size)
    first = jnp.arange(len(lengths))[:, None] * self.group_size
    within = jnp.argsort(lengths, axis=1)
    rows = (first + within).reshape(-1, self.shared_rows)
    longest = jnp.take_along_axis(lengths, within, axis=1)
    longest = longest.reshape(-1, self.shared_rows).max(axis=1)
    return jnp.take(rows, jnp.argsort(longest), axis=0).reshape(-1)

  def columns(self, token_mask: Array) -> Array:
    """Completion columns that rows are run at, all rows together: f32 [].

    Args:
      token_mask: bool [B, P + R], of the rows.
    """
    num_rows, num_columns = token_mask.shape
    widths = self.widths(num_columns - self.prompt_length)
    width = jnp.asarray(widths)[self._bucket(token_mask, widths)]
    return (num_rows * width).astype(jnp.float32)

  def shortened(self, function: Callable[..., T]) -> Callable[..., T]:
    """The function, run at the least width that holds its rows.

    Where the result has fewer columns than at the full width, zeros follow.

    Args:
      function: at any width, of a pytree with a `token_mask` and of others;
        their leaves are [B], [B, P + R, …] and [B, R, …].
    """
    if self.count == 1:
      return function
    return functools.partial(self._run, function)

  def _run(self, function: Callable[..., T], rows: Any, *others: Any) -> T:
    num_columns = rows.token_mask.shape[1] - self.prompt_length
    widths = self.widths(num_columns)
    whole = jax.eval_shape(function, rows, *others)

    def at(width: int) -> Callable[..., T]:
      def run(*leaves: Any) -> T:
        short = jax.tree.map(lambda x: _without(x, num_columns - width), leaves)
        return jax.tree.map(_widened, function(*short), whole)

      return run

    bucket = self._bucket(rows.token_mask, widths)
    return jax.lax.switch(
      bucket, [at(width) for width in widths], rows, *others
    )

  def _bucket(self, token_mask: Array, widths: tuple[int, ...]) -> Array:
    """Index of the least width that holds the longest row: i32 []."""
    longest = jnp.max(self.lengths(token_mask))
    return jnp.searchsorted(jnp.asarray(widths), longest)


def _without(x: Array, count: int) -> Array:
  """Rows without their last columns; [B] as it is."""
  return x if x.ndim == 1 else x[:, : x.shape[1] - count]


def _widened(x: Array, like: Any) -> Array:
  """An array with zeros after it, up to a shape."""
  if x.shape == like.shape:
    return x
  pads = zip(x.shape, like.shape, strict=True)
  return jnp.pad(x, [(0, whole - size) for size, whole in pads])
