"""Dynamic sampling (DAPO, arXiv:2503.14476): groups that teach something.

A group whose rewards are all equal has no advantage. It can be dropped, so
that it does not count among the tokens a loss is averaged over, or replaced by
a group of a further batch. Which prompts a further batch holds and how they
are sampled follow from (seed, step, attempt): there is no cursor to save.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.base import Array, Rollout
from dppo_jax.rewards.verdicts import Verdict
from dppo_jax.runtime.hosts import host_rows


class Drawn(NamedTuple):
  """One batch of N groups of G, sampled and verified.

  Attributes:
    rollout: on the device, B = N·G rows.
    on_host: the same on the host, without what only the device needs.
    completions: B texts.
    verdicts: B verdicts.
    metrics: `rewards/…` of the batch.
  """

  rollout: Rollout
  on_host: Rollout
  completions: list[str]
  verdicts: list[Verdict]
  metrics: dict[str, float]

  def rewards(self) -> np.ndarray:
    """f32 [B]."""
    return np.asarray([v.reward for v in self.verdicts], np.float32)


class Collected(NamedTuple):
  """The groups that a step trains on, and the attempts they took.

  Attributes:
    drawn: N groups.
    varied: bool [N], groups whose rewards differ.
    num_attempts: batches that were sampled.
    num_tokens: completion tokens that were sampled.
    useful_decode_share: decode steps that made one of them, of those run in
      any row; a completion's first token takes none.
    reward_mean: of all that was sampled, replaced groups included.
  """

  drawn: Drawn
  varied: np.ndarray
  num_attempts: int
  num_tokens: int
  useful_decode_share: float
  reward_mean: float


DrawFn = Callable[[int], Drawn]  # Attempt, from 0 -> a batch.
MergeFn = Callable[[Rollout, Rollout, Array], Rollout]


def varied(rewards: np.ndarray, group_size: int) -> np.ndarray:
  """Which groups have rewards that differ: bool [N]."""
  grouped = rewards.reshape(-1, group_size)
  return grouped.max(axis=1) != grouped.min(axis=1)


def merge(rollout: Rollout, further: Rollout, rows: Array) -> Rollout:
  """Takes rows of two rollouts; groups keep the places of the first.

  Args:
    rollout: B rows.
    further: B rows.
    rows: i32 [B]; b < B is a row of `rollout`, b >= B one of `further`.
  """
  taken = jax.tree.map(
    lambda a, b: jnp.concatenate([a, b])[rows], rollout, further
  )
  return dataclasses.replace(taken, group_id=rollout.group_id)


def collect(
  draw: DrawFn, merge_fn: MergeFn, group_size: int, max_attempts: int
) -> Collected:
  """Samples until every group is varied, or the attempts are spent.

  A group without variance is replaced by the next varied one of a further
  batch whose prompt is not in the batch already. What cannot be replaced
  stays, and `varied` says so.

  Args:
    draw: samples a batch.
    merge_fn: `merge`, compiled.
    group_size: G.
    max_attempts: batches to sample at most; 1 replaces nothing.
  """
  drawn = draw(0)
  rewards = drawn.rewards()
  useful = varied(rewards, group_size)
  work = _work(drawn)
  means = [float(rewards.mean())]
  while not useful.all() and len(means) < max_attempts:
    further = draw(len(means))
    means.append(float(further.rewards().mean()))
    work += _work(further)
    groups, useful = _replacements(drawn, further, useful, group_size)
    rows = groups[:, None] * group_size + np.arange(group_size)
    drawn = _join(drawn, further, rows.reshape(-1), merge_fn)
  num_tokens, num_useful, num_steps = work.tolist()
  return Collected(
    drawn,
    useful,
    len(means),
    num_tokens,
    num_useful / num_steps if num_steps else 1.0,
    float(np.mean(means)),
  )


def _work(drawn: Drawn) -> np.ndarray:
  """Completion tokens, decode steps that made one, and those run: i64 [3]."""
  rollout = drawn.on_host
  if rollout.decode_steps is None:
    raise ValueError('Rollout.decode_steps: the sampler counted none.')
  lengths = np.sum(rollout.completion_mask, axis=1, dtype=np.int64)
  decoded = np.maximum(lengths - 1, 0)
  tokens, useful = host_rows.total(
    np.array([lengths.sum(), decoded.sum()], np.int64)
  )
  steps = np.sum(rollout.decode_steps, dtype=np.int64)
  return np.array([tokens, useful, steps], np.int64)


def _replacements(
  drawn: Drawn, further: Drawn, useful: np.ndarray, group_size: int
) -> tuple[np.ndarray, np.ndarray]:
  """The group that takes each place, counted on from `drawn`; and `useful`."""
  num_groups = len(useful)
  ids = np.asarray(drawn.on_host.example_id)[::group_size]
  further_ids = np.asarray(further.on_host.example_id)[::group_size]
  taken = set(ids[useful].tolist())
  groups, useful = np.arange(num_groups), useful.copy()
  places = iter(np.flatnonzero(~useful).tolist())
  candidates = np.flatnonzero(varied(further.rewards(), group_size))
  for candidate in candidates.tolist():
    if int(further_ids[candidate]) in taken:
      continue
    place = next(places, None)
    if place is None:
      break
    taken.add(int(further_ids[candidate]))
    groups[place], useful[place] = num_groups + candidate, True
  return groups, useful


def _join(
  drawn: Drawn, further: Drawn, rows: np.ndarray, merge_fn: MergeFn
) -> Drawn:
  def take(first: list, second: list) -> list:
    both = [*first, *second]
    return [both[row] for row in rows.tolist()]

  on_host = jax.tree.map(
    lambda a, b: np.concatenate([a, b])[rows], drawn.on_host, further.on_host
  )
  return Drawn(
    merge_fn(drawn.rollout, further.rollout, jnp.asarray(rows, jnp.int32)),
    dataclasses.replace(on_host, group_id=drawn.on_host.group_id),
    take(drawn.completions, further.completions),
    take(drawn.verdicts, further.verdicts),
    drawn.metrics,
  )
