import dataclasses

import numpy as np
import pytest

from dppo_jax.runtime.ledger import record as record_lib
from tests.support import factories
from tests.support import ledger_records as records


def test_tokens_are_those_of_the_completions_row_after_row():
  record = records.trained()
  made, decisions = records.decide_in_training(records.loss_config())
  mask = np.asarray(made.completion_mask)
  assert len(record.row) == mask.sum()
  assert (np.diff(record.row) >= 0).all()
  np.testing.assert_array_equal(record.lengths(), mask.sum(1))
  for n in (0, 7, len(record.row) - 1):
    b, r = record.row[n], record.position[n]
    t = r + records.WIDTH
    assert mask[b, t]
    assert record.token[n] == made.tokens[b, t]
    assert record.advantages[n] == made.advantages[b, t]
    assert record.rollout_log_probs[n] == made.rollout.log_probs[b, t]
    assert record.rollout_entropy[n] == made.rollout.entropy[b, t]
    assert record.log_probs[n] == decisions.log_probs[b, r]
    assert record.divergence[n] == decisions.divergence[b, r]
    assert record.keep[n] == decisions.keep[b, r]
    for got, want in (
      (record.top_ids[n], made.rollout.top_ids[b, t]),
      (record.rollout_top_log_probs[n], made.rollout.top_log_probs[b, t]),
      (record.top_log_probs[n], decisions.top_log_probs[b, r]),
    ):
      np.testing.assert_array_equal(got, want)


def test_rows_keep_their_texts_and_verdicts():
  record = records.trained(step=7)
  assert record.step.tolist() == [7] * records.ROWS
  assert record.prompts[5] == 'prompt 1'
  assert record.completions[5] == 'completion 5'
  assert record.reasons[5] == 'reason 2'
  assert (record.reward[5], record.reward[6]) == (1.0, 0.0)
  assert (record.group_id[5], record.example_id[5]) == (1, 41)
  assert record.update.tolist()[:: records.ROWS - 1] == [0, 1]
  assert record.trust_region['divergence'] == 'topk_tv'
  assert record.vocab_size == factories.VOCAB_SIZE
  assert record.num_columns == records.LENGTH


def test_recomputed_stats_are_kept_where_there_are_any():
  assert records.trained().recomputed_log_probs is None
  record = records.trained(anchor='recomputed')
  again = records.batch().recomputed
  b, t = record.row[3], record.position[3] + records.WIDTH
  assert record.recomputed_log_probs[3] == again.log_probs[b, t]
  np.testing.assert_array_equal(
    record.recomputed_top_log_probs[3], again.top_log_probs[b, t]
  )


def test_ids_without_text_have_a_name():
  words = records.Words()
  got = [
    record_lib.piece(words, i) for i in (words.eos_ids[0], words.pad_id, 2)
  ]
  assert got == ['<eos>', '<pad>', 'c']
  record = records.trained()
  assert record.pieces.keys() == set(record.token.tolist())


def test_merging_concatenates_rows():
  one, other = records.trained(step=7), records.trained(step=9, seed=3)
  both = record_lib.merge([one, other])
  assert both.step.tolist() == [7] * records.ROWS + [9] * records.ROWS
  assert len(both.row) == len(one.row) + len(other.row)
  np.testing.assert_array_equal(
    both.lengths(), np.concatenate([one.lengths(), other.lengths()])
  )
  np.testing.assert_array_equal(both.token[-len(other.row) :], other.token)
  assert both.top_ids.shape[0] == len(both.row)
  assert both.prompts == [*one.prompts, *other.prompts]
  assert both.pieces == {**one.pieces, **other.pieces}
  assert both.recomputed_log_probs is None


def test_records_of_different_configs_do_not_merge():
  one = records.hand_made()
  region = {**one.trust_region, 'delta_low': 0.3}
  for other in (
    dataclasses.replace(one, trust_region=region),
    dataclasses.replace(one, rollout_entropy=one.keep),
  ):
    with pytest.raises(ValueError, match='different configs'):
      record_lib.merge([one, other])
