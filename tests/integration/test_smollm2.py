"""A real model in a GGUF file answers in English, where the file is there."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.base import Prompts
from dppo_jax.configs import smollm2
from dppo_jax.conformance import hf_models
from dppo_jax.data.hf_tokenizer import HFTokenizer
from dppo_jax.runtime.programs.compiled import vocabulary_axes
from dppo_jax.sampling.decode import SamplingConfig, sample

_PATH = pathlib.Path(smollm2.MODEL).expanduser()
# `transformers` has the same continuations of the exported folder.
_ANSWERS = {
  'What is the capital of France?': 'The capital of France is Paris.<|im_end|>',
  'Why is the sky blue?': 'The answer to this question lies in the intricate',
  'Give me three tips for staying healthy.': '1. Stay hydrated: Drink plenty',
  'Write one sentence about a cat.': 'A cat is a majestic creature with a',
  'What is photosynthesis?': 'Photosynthesis is a vital biological process',
}
_LENGTH = 9


@pytest.mark.slow
@pytest.mark.skipif(not _PATH.is_file(), reason='the model is not here')
def test_plain_questions_are_answered_in_english():
  """Rotations, row order, template and sampler agree, or this is babble."""
  policy, params = hf_models.load_policy(_PATH)
  tokenizer = HFTokenizer(
    _PATH, prompt_template='{prompt}', use_chat_template=True, system_prompt=''
  )
  rows = [tokenizer.encode_prompt(question) for question in _ANSWERS]
  width = max(map(len, rows))
  tokens = np.full((len(rows), width), tokenizer.pad_id, np.int32)
  mask = np.zeros((len(rows), width), bool)
  for row, ids in enumerate(rows):
    tokens[row, width - len(ids) :] = ids
    mask[row, width - len(ids) :] = True
  config = SamplingConfig(
    group_size=1,
    max_completion_length=_LENGTH,
    temperature=1.0,
    top_p=1.0,
    support=None,
    greedy=True,
    top_k=0,
    with_hidden=False,
    with_routes=False,
    precision='float32',
    pad_id=tokenizer.pad_id,
    eos_ids=tokenizer.eos_ids,
    stop_ids=(),
    num_slots=0,
    cache_columns=0,
  )
  mesh = parallel.make_mesh(1, 1, 1, devices=jax.devices()[:1])
  draw = functools.partial(sample, policy, vocabulary_axes(mesh), config)
  prompts = Prompts(
    tokens=jnp.asarray(tokens),
    mask=jnp.asarray(mask),
    example_id=jnp.zeros(len(rows), jnp.int32),
  )
  drawn = jax.jit(draw)(params, prompts, jax.random.PRNGKey(0))
  for row, expected in zip(
    np.asarray(drawn.tokens), _ANSWERS.values(), strict=True
  ):
    assert tokenizer.decode_raw(row[width:]).startswith(expected)
