"""The prompt stream is a pure function of the step."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from dppo_jax.data import prompt_stream, tasks, word_tokenizer

_TOKENIZER = word_tokenizer.WordTokenizer(tasks.TASKS['sort'].vocabulary)


def _examples(lengths):
  return [
    {
      'example_id': 100 + i,
      'prompt': ' '.join(str((i + j) % 10) for j in range(length)),
      'answer': '0',
    }
    for i, length in enumerate(lengths)
  ]


def _stream(
  lengths=(3,) * 10, num_prompts=4, limit=5, overlong='filter', seed=0
):
  return prompt_stream.PromptStream(
    _examples(lengths), _TOKENIZER, num_prompts, limit, overlong, seed
  )


def test_prompts_end_in_the_last_column():
  stream = _stream(lengths=(1, 5, 3), num_prompts=3)
  prompts = stream.first(0)
  np.testing.assert_array_equal(
    prompts.tokens, [[0, 0, 0, 0, 3], [4, 5, 6, 7, 8], [0, 0, 5, 6, 7]]
  )
  np.testing.assert_array_equal(
    prompts.mask, [[0, 0, 0, 0, 1], [1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]
  )
  np.testing.assert_array_equal(prompts.example_id, [100, 101, 102])
  assert prompts.tokens.dtype == prompts.example_id.dtype == np.int32
  assert prompts.mask.dtype == bool


def test_a_step_gives_the_same_prompts_in_any_order_of_asking():
  forward, backward = _stream(), _stream()
  steps = list(range(12))
  expected = [forward.batch(step).example_id.tolist() for step in steps]
  found = [backward.batch(s).example_id.tolist() for s in reversed(steps)]
  assert found[::-1] == expected
  assert len({tuple(ids) for ids in expected}) > 6


@pytest.mark.parametrize('attempt', [0, 2])
def test_hosts_take_their_rows_of_a_step(attempt):
  stream = _stream()
  whole = stream.batch(3, attempt)
  parts = [stream.batch(3, attempt, np.array(r)) for r in ([1, 3], [0, 2])]
  for name in ('tokens', 'mask', 'example_id'):
    for rows, part in zip(([1, 3], [0, 2]), parts, strict=True):
      np.testing.assert_array_equal(
        getattr(part, name), getattr(whole, name)[rows]
      )


@given(
  num_examples=st.integers(1, 40),
  batch_size=st.integers(1, 50),
  seed=st.integers(0, 5),
)
def test_every_epoch_is_a_permutation(num_examples, batch_size, seed):
  num_steps = -(-3 * num_examples // batch_size)
  indices = np.concatenate(
    [
      prompt_stream.batch_indices(step, batch_size, num_examples, seed)
      for step in range(num_steps)
    ]
  )
  epochs = indices[: 3 * num_examples].reshape(3, num_examples)
  np.testing.assert_array_equal(
    np.sort(epochs, axis=1), np.tile(np.arange(num_examples), (3, 1))
  )


def test_epochs_and_seeds_differ_in_order():
  first = prompt_stream.batch_indices(0, 50, 50, seed=0)
  assert (first != prompt_stream.batch_indices(1, 50, 50, seed=0)).any()
  assert (first != prompt_stream.batch_indices(0, 50, 50, seed=1)).any()


def test_tokens_mask_and_id_belong_together():
  stream = _stream(lengths=(1, 2, 3, 4, 5), num_prompts=3)
  prompts = stream.batch(7)
  examples = stream.examples(prompts.example_id)
  rows = zip(prompts.tokens, prompts.mask, examples, strict=True)
  for tokens, mask, example in rows:
    assert _TOKENIZER.decode(tokens[mask]) == example['prompt']


def test_examples_may_repeat_as_groups_do():
  stream = _stream()
  found = stream.examples(np.repeat([103, 101], 2))
  assert [example['example_id'] for example in found] == [103, 103, 101, 101]


def test_the_whole_split_keeps_its_order():
  stream = _stream()
  for num_prompts in (0, 10, 99):
    ids = stream.first(num_prompts).example_id.tolist()
    assert ids == list(range(100, 110))
  with pytest.raises(ValueError, match=r'evaluation\.num_prompts: got -1'):
    stream.first(-1)


def test_a_part_of_the_split_is_a_sample_that_no_seed_changes():
  stream = _stream(lengths=(3,) * 1000)
  ids = stream.first(100).example_id - 100
  assert len(set(ids.tolist())) == 100
  # Of an ordered split every tenth is there, not the first tenth alone.
  counts = np.bincount(ids // 100, minlength=10)
  assert counts.min() >= 4
  assert counts.max() <= 20
  again = _stream(lengths=(3,) * 1000, seed=7)
  np.testing.assert_array_equal(again.first(100).example_id, ids + 100)
  # Smaller parts lie in larger ones, and all of them in the whole.
  np.testing.assert_array_equal(again.first(30).example_id, ids[:30] + 100)
  everything = again.shuffled().example_id
  np.testing.assert_array_equal(everything[:100], ids + 100)
  assert sorted(everything.tolist()) == list(range(100, 1100))


def test_overlong_prompts_are_counted_and_dropped():
  stream = _stream(lengths=(3, 6, 5, 7), num_prompts=2)
  assert stream.num_filtered == 2
  assert stream.num_examples == 2
  assert stream.first(9).example_id.tolist() == [100, 102]


def test_overlong_prompts_are_refused():
  match = r'data\.max_prompt_length: 2 of 4 prompts exceed 5 .* has 7'
  with pytest.raises(ValueError, match=match):
    _stream(lengths=(3, 6, 5, 7), overlong='error')


@pytest.mark.parametrize(
  ('changes', 'match'),
  [
    ({'lengths': (9, 9)}, r'data\.max_prompt_length: 2 of 2'),
    ({'lengths': (3, 0)}, r'data\.task: 1 of 2 prompts have no tokens'),
    ({'lengths': ()}, r'data\.task: no examples'),
    ({'overlong': 'cut'}, r"data\.overlong: unknown 'cut'"),
    ({'num_prompts': 0}, r'data\.num_prompts: got 0'),
  ],
)
def test_bad_input_is_refused(changes, match):
  with pytest.raises(ValueError, match=match):
    _stream(**changes)


def test_repeated_ids_are_refused():
  examples = _examples((3, 3)) + _examples((3,))
  with pytest.raises(ValueError, match=r'example_id 100 occurs 2 times'):
    prompt_stream.PromptStream(examples, _TOKENIZER, 1, 5, 'filter', 0)


def test_padding_on_either_side():
  tokens, mask = prompt_stream.pad_rows([[7], [8, 9]], 3, 0, left=False)
  np.testing.assert_array_equal(tokens, [[7, 0, 0], [8, 9, 0]])
  np.testing.assert_array_equal(mask, [[1, 0, 0], [1, 1, 0]])
  tokens, mask = prompt_stream.pad_rows([[7], [8, 9]], 3, 0, left=True)
  np.testing.assert_array_equal(tokens, [[0, 0, 7], [0, 8, 9]])
  np.testing.assert_array_equal(mask, [[0, 0, 1], [0, 1, 1]])


def _mixed(weights=(3.0, 1.0), sizes=(7, 5), num_prompts=4, seed=0):
  examples = [
    {**example, 'component': int(i >= sizes[0]), 'level': f'L{i % 2}'}
    for i, example in enumerate(_examples((3,) * sum(sizes)))
  ]
  return prompt_stream.PromptStream(
    examples, _TOKENIZER, num_prompts, 5, 'filter', seed, weights
  )


def test_a_mixture_has_its_shares_and_goes_through_each_source():
  stream = _mixed()
  ids = np.concatenate([stream.batch(s).example_id for s in range(250)]) - 100
  first = ids[ids < 7]
  second = ids[ids >= 7]
  assert len(first) == 750
  assert len(second) == 250
  for drawn, size in ((first, 7), (second, 5)):
    epochs = drawn[: len(drawn) // size * size].reshape(-1, size)
    assert all(len(set(epoch)) == size for epoch in epochs.tolist())
  again = _mixed().batch(137)
  np.testing.assert_array_equal(again.example_id, stream.batch(137).example_id)


def test_a_source_of_a_mixture_without_prompts_that_fit():
  examples = _examples((3, 9))
  rows = [{**e, 'component': i} for i, e in enumerate(examples)]
  with pytest.raises(ValueError, match=r'data\.mixture: no prompt of row 1'):
    prompt_stream.PromptStream(rows, _TOKENIZER, 1, 5, 'filter', 0, (1.0, 1.0))


@pytest.mark.parametrize('make', [_stream, _mixed])
def test_attempts_have_streams_of_their_own(make):
  stream, fresh = make(), make()
  orders = {
    tuple(stream.batch(step, attempt).example_id.tolist())
    for step in range(3)
    for attempt in range(3)
  }
  assert len(orders) >= 8
  expected = fresh.batch(2, 1).example_id  # Asked in another order.
  np.testing.assert_array_equal(stream.batch(2, 1).example_id, expected)
  first = [fresh.batch(step).example_id for step in range(3)]
  np.testing.assert_array_equal(
    first, [stream.batch(step, 0).example_id for step in range(3)]
  )


def test_levels_are_counted():
  assert _mixed().facts() == {'level': {'L0': 6, 'L1': 6}, 'source': {}}
