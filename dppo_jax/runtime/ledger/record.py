"""A record of the ledger: per token, the inputs of every trust-region rule.

Per-token columns have completion tokens only, row after row; per-row columns
are indexed by `row`. `files` writes and reads records.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from dppo_jax.base import Batch, Decisions, Rollout, Tokenizer
from dppo_jax.learner.train_step import StepRecord
from dppo_jax.runtime.storage.metrics_log import Sample

END, PAD = '<eos>', '<pad>'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
  """B completions with n tokens in total, and the decisions on them.

  Attributes:
    trust_region: section of the config, the recorded rule.
    num_columns: R, columns of the batch; positions are below it.
    vocab_size: V.
    pieces: text of each sampled id.
    prompts: B texts.
    completions: B texts.
    reasons: of the verifier, B texts.
    step: i32 [B], the train step.
    example_id: i32 [B].
    group_id: i32 [B], prompt within its step.
    reward: f32 [B].
    update: i32 [B], which update of the step used the row, from 0.
    row: i32 [n], in [0, B), ascending.
    position: i32 [n], in the completion, from 0.
    token: i32 [n].
    advantages: f32 [n].
    rollout_log_probs: f32 [n], log mu.
    log_probs: f32 [n], log pi at the update that used the token.
    divergence: f32 [n], as configured.
    keep: f32 [n], M.
    rollout_entropy: f32 [n], nats.
    recomputed_log_probs: f32 [n], where the rule is anchored on them.
    turn: i32 [n], of a conversation, from 1.
    support: i32 [n], number of tokens that could be sampled; they are the first
      of `top_ids` as far as these go. None: the vocabulary.
    top_ids: i32 [n, K], the most likely tokens under mu.
    rollout_top_log_probs: f32 [n, K], their log mu.
    top_log_probs: f32 [n, K], their log pi.
    recomputed_top_log_probs: f32 [n, K].
  """

  trust_region: Mapping[str, Any]
  num_columns: int
  vocab_size: int
  pieces: Mapping[int, str]
  prompts: Sequence[str]
  completions: Sequence[str]
  reasons: Sequence[str]
  step: np.ndarray
  example_id: np.ndarray
  group_id: np.ndarray
  reward: np.ndarray
  update: np.ndarray
  row: np.ndarray
  position: np.ndarray
  token: np.ndarray
  advantages: np.ndarray
  rollout_log_probs: np.ndarray
  log_probs: np.ndarray
  divergence: np.ndarray
  keep: np.ndarray
  rollout_entropy: np.ndarray | None = None
  recomputed_log_probs: np.ndarray | None = None
  turn: np.ndarray | None = None
  support: np.ndarray | None = None
  top_ids: np.ndarray | None = None
  rollout_top_log_probs: np.ndarray | None = None
  top_log_probs: np.ndarray | None = None
  recomputed_top_log_probs: np.ndarray | None = None

  def lengths(self) -> np.ndarray:
    """Tokens of each completion, i64 [B]."""
    return np.bincount(self.row, minlength=len(self.step))


# Fields of a record: one entry per row, per token, or per token and rank.
TEXTS = ('prompts', 'completions', 'reasons')
ROWS = {
  'step': np.int32,
  'example_id': np.int32,
  'group_id': np.int32,
  'reward': np.float32,
  'update': np.int32,
}
TOKENS = {
  'row': np.int32,
  'position': np.int32,
  'token': np.int32,
  'advantages': np.float32,
  'rollout_log_probs': np.float32,
  'log_probs': np.float32,
  'divergence': np.float32,
  'keep': np.float32,
}
OPTIONAL = {
  'rollout_entropy': np.float32,
  'recomputed_log_probs': np.float32,
  'turn': np.int32,
  'support': np.int32,
}
PAIRS = {
  'top_ids': np.int32,
  'rollout_top_log_probs': np.float32,
  'top_log_probs': np.float32,
  'recomputed_top_log_probs': np.float32,
}
COLUMNS = {**ROWS, **TOKENS, **OPTIONAL, **PAIRS}


def make_record(
  step: int,
  trust_region: Mapping[str, Any],
  tokenizer: Tokenizer,
  rollout: Rollout,
  batch: Batch,
  recorded: StepRecord,
  samples: Sequence[Sample],
) -> Record:
  """Record of one step.

  Args:
    step: train steps taken, this one included.
    trust_region: the section of the resolved config.
    tokenizer: reads single ids.
    rollout: whose rows are recorded.
    batch: as trained on, on the host.
    recorded: `Decisions` and the update of each row, on the host.
    samples: texts and verdict of each row.
  """
  decisions: Decisions = recorded.record
  num_columns = decisions.keep.shape[1]
  first = batch.tokens.shape[1] - num_columns
  mask = np.asarray(batch.completion_mask)[:, first:]
  row, position = np.nonzero(mask)

  def of_batch(values: Any) -> Any:
    return None if values is None else np.asarray(values)[:, first:][mask]

  def of_decisions(values: Any) -> Any:
    return None if values is None else np.asarray(values)[mask]

  mu, anchor = batch.rollout, batch.recomputed
  token = of_batch(batch.tokens)
  return Record(
    trust_region=dict(trust_region),
    num_columns=num_columns,
    vocab_size=tokenizer.vocab_size,
    pieces={int(i): piece(tokenizer, int(i)) for i in np.unique(token)},
    prompts=[sample.prompt for sample in samples],
    completions=[sample.completion for sample in samples],
    reasons=[sample.reason for sample in samples],
    step=np.full(len(mask), step, np.int32),
    example_id=np.asarray(rollout.example_id),
    group_id=np.asarray(rollout.group_id),
    reward=np.asarray([sample.reward for sample in samples], np.float32),
    update=np.asarray(recorded.update),
    row=row.astype(np.int32),
    position=position.astype(np.int32),
    token=token,
    advantages=of_batch(batch.advantages),
    rollout_log_probs=of_batch(mu.log_probs),
    log_probs=of_decisions(decisions.log_probs),
    divergence=of_decisions(decisions.divergence),
    keep=of_decisions(decisions.keep),
    rollout_entropy=of_batch(mu.entropy),
    recomputed_log_probs=of_batch(anchor and anchor.log_probs),
    turn=of_batch(batch.turn),
    support=_sizes(of_batch(mu.support)),
    top_ids=of_batch(mu.top_ids),
    rollout_top_log_probs=of_batch(mu.top_log_probs),
    top_log_probs=of_decisions(decisions.top_log_probs),
    recomputed_top_log_probs=of_batch(anchor and anchor.top_log_probs),
  )


def _sizes(support: np.ndarray | None) -> np.ndarray | None:
  """Numbers of ids of i32 [n, S], -1 for none: i32 [n]."""
  if support is None:
    return None
  return np.asarray((support >= 0).sum(axis=1), np.int32)


def piece(tokenizer: Tokenizer, token: int) -> str:
  """Text of one id; padding and end tokens have a name."""
  names = {tokenizer.pad_id: PAD} | dict.fromkeys(tokenizer.eos_ids, END)
  return names[token] if token in names else tokenizer.decode([token])


def merge(records: Sequence[Record]) -> Record:
  """Several records as one, concatenated by rows.

  Raises:
    ValueError: their configs or columns differ.
  """
  first = records[0]
  recorded = {name: getattr(first, name) is None for name in COLUMNS}
  for other in records[1:]:
    if other.trust_region != first.trust_region or recorded != {
      name: getattr(other, name) is None for name in COLUMNS
    }:
      raise ValueError(
        f'--step: the records of steps {first.step[0]} and {other.step[0]} are'
        ' of different configs; use one --step at a time.'
      )
  begins = np.cumsum([0, *(len(record.step) for record in records)])
  joined: dict[str, Any] = {
    name: [text for record in records for text in getattr(record, name)]
    for name in TEXTS
  }
  for name in COLUMNS:
    if not recorded[name]:
      joined[name] = np.concatenate([getattr(r, name) for r in records])
  joined['row'] = np.concatenate(
    [record.row + begin for record, begin in zip(records, begins, strict=False)]
  ).astype(np.int32)
  return dataclasses.replace(
    first,
    num_columns=max(record.num_columns for record in records),
    pieces={k: v for record in records for k, v in record.pieces.items()},
    **joined,
  )
