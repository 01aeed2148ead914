import dataclasses

import numpy as np
import pytest

from dppo_jax.base import Rollout, TokenStats
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.runtime.rollouts import verify
from tests.support import runs


@pytest.fixture
def parts():
  return runs.parts()


class _Decoder:
  """A tokenizer whose text has half a surrogate pair."""

  def decode_batch(self, ids, mask):
    del mask
    return ['1 \ud800'] * len(ids)


def _verifier(parts, pool, tokenizer):
  return verify.CompletionVerifier(
    tokenizer=tokenizer,
    stream=parts.held_out,
    pool=pool,
    prompt_length=6,
  )


def test_texts_that_are_no_utf8_are_mended(parts):
  prompt = parts.held_out.first(1)
  rollout = Rollout(
    tokens=np.zeros((1, 10), np.int32),
    token_mask=np.ones((1, 10), bool),
    completion_mask=np.ones((1, 10), bool),
    stats=TokenStats(log_probs=np.zeros((1, 10), np.float32)),
    group_id=np.zeros(1),
    example_id=prompt.example_id,
    truncated=np.array([False]),
  )
  with VerifierPool('numeric', 'whole', 1, 5.0, 1024, 60.0) as pool:
    texts, ((verdict,),) = _verifier(parts, pool, _Decoder()).verify(rollout)
  assert texts == ['1 ?']
  assert verdict == (0.0, 'malformed')


def test_completions_are_read_without_their_prompts(parts):
  tokens = np.array([[0, 0, *parts.tokenizer.encode('1 2'), 0, 0]])
  prompt = parts.held_out.first(1)
  rollout = Rollout(
    tokens=np.concatenate([prompt.tokens, tokens[:, 2:]], axis=1),
    token_mask=np.ones((1, 10), bool),
    completion_mask=np.arange(10)[None] >= 6,
    stats=TokenStats(log_probs=np.zeros((1, 10), np.float32)),
    group_id=np.zeros(1),
    example_id=prompt.example_id,
    truncated=np.array([False]),
  )
  with VerifierPool('last_word', 'whole', 0, 1.0, 4096, 60.0) as pool:
    verifier = _verifier(parts, pool, parts.tokenizer)
    texts, ((verdict,),) = verifier.verify(rollout)
    cut = dataclasses.replace(rollout, truncated=np.array([True]))
    _, ((cut_verdict,),) = verifier.verify(cut)
  assert texts == ['1 2']
  assert verdict.reason in ('right', 'wrong')
  assert cut_verdict.reason == 'truncated'
