"""Conversations of a rollout: turns on the device, an environment on the host.

A rollout depends on (parameters, prompts, key) alone: tokens do, see
`sampling/turns.py`, and an environment is a pure function of the seed, its
state and the message. What was under way when a run was killed is sampled
again, and comes out the same.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax import parallel
from dppo_jax.base import Array, Conversations, Params, Prompts, Rollout
from dppo_jax.data.prompt_stream import PromptStream, pad_rows
from dppo_jax.rewards.environments.pool import EnvironmentPool
from dppo_jax.rewards.environments.replies import Reply
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.rewards.verdicts import (
  MAX_REASON_LENGTH,
  OUT_OF_TURNS,
  TRUNCATED,
  Verdict,
  error_verdict,
)
from dppo_jax.runtime import activity
from dppo_jax.runtime.config.experiment import EnvironmentConfig
from dppo_jax.runtime.hosts import coordination
from dppo_jax.runtime.programs import compiled
from dppo_jax.runtime.programs.parts import ModelParts, Parts, complete
from dppo_jax.sampling.decode import SamplingConfig
from dppo_jax.sampling.slot_plan import plan_for
from dppo_jax.sampling.slot_turns import SlotTurnSampler
from dppo_jax.sampling.turns import Told, TurnSampler, TurnState

_REASON_BYTES = 4 * MAX_REASON_LENGTH  # UTF-8 takes up to four a character.


class _Conversation:
  """One row: whom it is with, and how far it is.

  Attributes:
    example: the data row of its prompt.
    seed: of the environment.
    state: of the last reply.
    begin: column of the turn.
    number: of the last turn, from 1.
    verdict: once it is over.
    truncated: whether a budget of tokens ended it.
    num_cut: replies that were longer than may be.
    num_malformed: messages that the environment could not read.
  """

  def __init__(self, example: Any, seed: int):
    self.example, self.seed, self.state = example, seed, None
    self.begin = self.number = self.num_cut = self.num_malformed = 0
    self.verdict: Verdict | None = None
    self.truncated = False


class _Pause(NamedTuple):
  """The rows on the host, between two turns; as in `TurnState`."""

  tokens: np.ndarray
  filled: np.ndarray
  ended: np.ndarray
  live: np.ndarray


class _Programs(NamedTuple):
  """Compiled: the first turns, the next ones, and what comes of them."""

  start: Any
  resume: Any
  finish: Any


class ConversationSampler:
  """(params, prompts, key) -> Rollout with `conversation`.

  Attributes:
    truncated: a key of `TRUNCATED_POLICIES`: whether the environment is asked
      about a turn that a budget of tokens ended.
  """

  def __init__(
    self,
    parts: Any,
    stream: PromptStream,
    config: SamplingConfig,
    environment: EnvironmentConfig,
    pool: VerifierPool | None,
    truncated: str,
  ):
    """Compiles nothing yet.

    Args:
      parts: Parts of the run, as the sampler has them.
      stream: where the prompts come from.
      config: sampling settings.
      environment: budgets.
      pool: the environment, of `verify.open_pool`.
      truncated: a key of `TRUNCATED_POLICIES`.

    Raises:
      ValueError: the pool is no environment, or there are several processes.
    """
    if not isinstance(pool, EnvironmentPool):
      raise ValueError(
        f'environment.name: {environment.name!r} is not open here, where single'
        " answers are sampled; set it to ''."
      )
    if not coordination.is_single_process():
      raise ValueError(
        'environment.name: conversations run in one process, and this run has'
        f' {jax.process_count()}; use one host, or no environment.'
      )
    self._parts: Parts = parts
    self._stream, self._pool = stream, pool
    self._config, self._environment = config, environment
    self.truncated = truncated
    self._at_once, self._in_slots = _compile_turns(
      parts,
      config,
      environment.max_turn_length or config.max_completion_length,
    )

  def _programs(self, prompts: Prompts) -> _Programs:
    """Those for so many prompts: slots are for more rows than there are."""
    shards = parallel.num_batch_shards(self._parts.mesh)
    plan = plan_for(self._config, len(prompts.tokens), shards)
    return self._at_once if plan is None else self._in_slots

  def __call__(self, params: Params, prompts: Prompts, key: Array) -> Rollout:
    """Rollout of G conversations with each prompt."""
    rows, programs = self._open(prompts, key), self._programs(prompts)
    weights, state = programs.start(self._parts.base, params, prompts, key)
    turn = np.zeros(state.tokens.shape, np.int32)
    while True:
      pause = _Pause(
        *jax.device_get((state.tokens, state.filled, state.ended, state.live))
      )
      told = self._answer(rows, pause, turn)
      if all(row.verdict is not None for row in rows):
        break
      state = programs.resume(weights, state, self._told(told, len(rows)), key)
    return self._rollout(rows, programs.finish(state, prompts), state, turn)

  def shapes(self, params: Params, prompts: Prompts, key: Array) -> Rollout:
    """Shapes and dtypes of a rollout, for arrays or for shapes."""
    given = (self._parts.base, params, prompts, key)
    programs = self._programs(prompts)
    _, state = jax.eval_shape(programs.start, *given)
    rollout: Any = jax.eval_shape(programs.finish, state, prompts)
    columns, rows = rollout.tokens.shape, rollout.truncated.shape

    def of(shape: tuple[int, ...], dtype: Any) -> Any:
      return jax.ShapeDtypeStruct(shape, dtype)

    found = Conversations(
      turn=of(columns, jnp.int32),
      reward=of(rows, jnp.float32),
      reason=of((*rows, _REASON_BYTES), jnp.uint8),
      replies_cut=of(rows, jnp.int32),
      malformed=of(rows, jnp.int32),
    )
    return dataclasses.replace(rollout, conversation=found)

  def _open(self, prompts: Prompts, key: Array) -> list[_Conversation]:
    """B conversations; those of a prompt have one seed."""
    examples = self._stream.examples(prompts.example_id)
    seeds = jax.random.bits(key, (len(examples),), jnp.uint32).tolist()
    return [
      _Conversation(example, seed)
      for example, seed in zip(examples, seeds, strict=True)
      for _ in range(self._config.group_size)
    ]

  def _answer(
    self,
    rows: list[_Conversation],
    pause: _Pause,
    turn: np.ndarray,
  ) -> dict[int, list[int]]:
    """What the rows that wait and go on are told, by row; ends the others.

    Args:
      rows: B conversations, changed here.
      pause: the rows after turns.
      turn: i32 [B, R], filled in here.
    """
    asked: list[int] = []
    for b, row in enumerate(rows):
      if row.verdict is not None or pause.live[b] or not pause.filled[b]:
        continue  # Over, in the middle of a turn, or not begun.
      row.number += 1
      turn[b, row.begin : pause.filled[b]] = row.number
      row.truncated = not pause.ended[b]
      if row.truncated and self.truncated == 'zero':
        row.verdict = TRUNCATED
      else:
        asked.append(b)
    messages = self._messages(rows, pause, asked)
    with activity.under_way(f'replies to {len(asked):,} conversations'):
      replies = self._pool.reply(
        [
          (message, rows[b].state, rows[b].example, rows[b].seed)
          for b, message in zip(asked, messages, strict=True)
        ]
      )
    told: dict[int, list[int]] = {}
    for b, reply in zip(asked, replies, strict=True):
      ids = self._take(rows[b], reply, int(pause.filled[b]))
      if ids is not None:
        told[b] = ids
    return told

  def _messages(
    self, rows: list[_Conversation], pause: _Pause, asked: list[int]
  ) -> list[str]:
    """What each of the rows wrote in its turn."""
    if not asked:
      return []
    columns = np.arange(pause.tokens.shape[1])[None]
    begin = np.asarray([rows[b].begin for b in asked])[:, None]
    mask = (columns >= begin) & (columns < pause.filled[asked][:, None])
    texts = self._parts.tokenizer.decode_batch(pause.tokens[asked], mask)
    # Half a surrogate pair has no UTF-8, and a worker is sent that.
    return [text.encode('utf-8', 'replace').decode('utf-8') for text in texts]

  def _take(
    self, row: _Conversation, reply: Reply, filled: int
  ) -> list[int] | None:
    """What the row is told after a reply; None where it is over."""
    row.num_malformed += reply.malformed
    if reply.reward is not None:
      row.verdict = Verdict(reply.reward, reply.reason)
      return None
    if row.truncated:
      row.verdict = TRUNCATED
      return None
    if row.number == self._environment.max_turns:
      row.verdict = OUT_OF_TURNS
      return None
    try:
      ids, cut = self._parts.tokenizer.encode_reply(
        reply.text, self._environment.max_reply_length
      )
    except ValueError as error:
      row.verdict = error_verdict(str(error))
      return None
    if filled + len(ids) >= self._config.max_completion_length:
      row.verdict, row.truncated = TRUNCATED, True
      return None
    row.state, row.begin = reply.state, filled + len(ids)
    row.num_cut += cut or reply.cut
    return ids

  def _told(self, told: dict[int, list[int]], num_rows: int) -> Told:
    """The same as arrays; of one width, so that one program serves all."""
    tokens, mask = pad_rows(
      [told.get(b, []) for b in range(num_rows)],
      self._config.max_completion_length,
      self._config.pad_id,
      left=False,
    )
    return Told(
      tokens=jnp.asarray(tokens),
      count=jnp.asarray(mask.sum(axis=1), jnp.int32),
      goes_on=jnp.asarray([b in told for b in range(num_rows)]),
    )

  def _rollout(
    self,
    rows: list[_Conversation],
    rollout: Rollout,
    state: TurnState,
    turn: np.ndarray,
  ) -> Rollout:
    verdicts = [row.verdict or OUT_OF_TURNS for row in rows]
    # A turn's columns begin with what the row was told.
    turn = np.where(jax.device_get(state.sampled), turn, 0)
    first = rollout.tokens.shape[1] - turn.shape[1]
    found = Conversations(
      turn=jnp.asarray(np.pad(turn, ((0, 0), (first, 0)))),
      reward=jnp.asarray([v.reward for v in verdicts], jnp.float32),
      reason=jnp.asarray(_write_reasons([v.reason for v in verdicts])),
      replies_cut=jnp.asarray([row.num_cut for row in rows], jnp.int32),
      malformed=jnp.asarray([row.num_malformed for row in rows], jnp.int32),
    )
    truncated = jnp.asarray([row.truncated for row in rows])
    found, truncated = jax.device_put(
      (found, truncated), self._parts.batch_sharding
    )
    return dataclasses.replace(rollout, conversation=found, truncated=truncated)


def _compile_turns(
  parts: ModelParts, config: SamplingConfig, max_turn_length: int
) -> tuple[_Programs, _Programs]:
  """Programs for all rows at once, and for rows in slots."""

  def compile_for(sampler: TurnSampler | SlotTurnSampler) -> _Programs:
    def start(
      base: Params | None, params: Params, prompts: Prompts, key: Array
    ) -> tuple[Any, TurnState]:
      return sampler.start(complete(parts, base, params), prompts, key)

    return _Programs(
      start=jax.jit(
        start,
        in_shardings=(
          None,  # Where it is.
          parts.shardings.params,
          parts.batch_sharding,
          parallel.replicated(parts.mesh),
        ),
      ),
      resume=jax.jit(sampler.resume, donate_argnums=1),
      finish=jax.jit(sampler.to_rollout, out_shardings=parts.batch_sharding),
    )

  axes = compiled.vocabulary_axes(parts.mesh)
  turns = TurnSampler(parts.policy, axes, config, max_turn_length)
  return compile_for(turns), compile_for(SlotTurnSampler(turns))


def _write_reasons(reasons: Sequence[str]) -> np.ndarray:
  """u8 [B, L]; see `Conversations`."""
  found = np.zeros((len(reasons), _REASON_BYTES), np.uint8)
  for row, reason in zip(found, reasons, strict=True):
    text = reason[:MAX_REASON_LENGTH].encode('utf-8', 'replace')
    row[: len(text)] = np.frombuffer(text, np.uint8)
  return found


def read_verdicts(conversation: Conversations) -> list[Verdict]:
  """B verdicts of conversations on the host."""
  rewards = np.asarray(conversation.reward).tolist()
  reasons = np.asarray(conversation.reason)
  return [
    Verdict(reward, row.tobytes().rstrip(b'\0').decode('utf-8'))
    for reward, row in zip(rewards, reasons, strict=True)
  ]
