import pathlib

import numpy as np
import pytest

from dppo_jax.base import Rollout, TokenStats
from dppo_jax.data.prompt_stream import pad_rows
from dppo_jax.runtime.rollouts import stop_strings, verify
from tests.support import runs

_FOLDER = str(pathlib.Path(__file__).parents[2] / 'testdata' / 'tokenizer')
_WIDTH, _LENGTH = 2, 40
_STOPS = ('</answer>', 'What')


@pytest.fixture(scope='module')
def parts():
  return runs.parts(
    runs.config(
      data__tokenizer=_FOLDER,
      data__max_prompt_length=40,
      sft__num_steps=0,
    )
  )


def _rollout(tokenizer, texts):
  ids = [tokenizer.encode(text) for text in texts]
  completion, mask = pad_rows(ids, _LENGTH, 0, left=False)
  prompt = np.ones((len(ids), _WIDTH), np.int32)
  whole = np.concatenate([prompt, completion], axis=1)
  mask = np.concatenate([prompt == 0, mask], axis=1)
  return Rollout(
    tokens=whole,
    token_mask=mask | (np.arange(_WIDTH + _LENGTH) < _WIDTH),
    completion_mask=mask,
    stats=TokenStats(log_probs=np.where(mask, -1.0, 0.0).astype(np.float32)),
    group_id=np.zeros(len(ids), np.int32),
    example_id=np.zeros(len(ids), np.int32),
    truncated=np.ones(len(ids), bool),
  )


def test_rows_end_with_the_token_that_completes_a_stop_string(parts):
  tokenizer = parts.tokenizer
  texts = ['<answer>12</answer> and on', 'no stop here', '3 What is 4', '']
  rollout = _rollout(tokenizer, texts)
  with runs.devices():
    cut = stop_strings.compile_cut(parts, _STOPS, _WIDTH, 0)
    after = cut(rollout, rollout)
  assert after.truncated.tolist() == [False, True, False, True]
  kept = tokenizer.decode_batch(
    after.tokens[:, _WIDTH:], after.completion_mask[:, _WIDTH:]
  )
  assert kept[1] == texts[1]
  assert kept[3] == ''
  for row, stop in ((0, '</answer>'), (2, 'What')):
    num_tokens = int(after.completion_mask[row].sum())
    ids = np.asarray(after.tokens)[row, _WIDTH:][:num_tokens]
    assert stop in tokenizer.decode(ids)
    assert stop not in tokenizer.decode(ids[:-1])
    assert (after.stats.log_probs[row] != 0).sum() == num_tokens
  lengths = np.asarray(rollout.completion_mask).sum(axis=1)
  np.testing.assert_array_equal(
    np.asarray(after.completion_mask).sum(axis=1)[[1, 3]], lengths[[1, 3]]
  )


def test_without_stop_strings_nothing_is_compiled(parts):
  assert stop_strings.compile_cut(parts, (), _WIDTH, 0) is None


def test_the_verifier_reads_up_to_the_stop_string(parts):
  class Pool:
    def verify_terms(self, completions, examples, truncated):
      del examples, truncated
      return [completions]

  class Stream:
    def examples(self, ids):
      return list(ids)

  rollout = _rollout(parts.tokenizer, ['1 What is', '2'])
  texts, (seen,) = verify.verify_terms(
    parts.tokenizer, Stream(), Pool(), rollout, _WIDTH, ('Wh', 'What i')
  )
  assert texts == seen == ['1 Wh', '2']
  assert stop_strings.trim('abc', ()) == 'abc'
