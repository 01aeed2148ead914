import pathlib

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from dppo_jax.data import hf_tokenizer
from dppo_jax.data import stop_strings as stop_strings_lib
from dppo_jax.data.word_tokenizer import WordTokenizer

# Tokens of several characters: a stop string may end within one.
_PIECES = ('a', 'b', 'ab', 'ba', 'aab', 'c', 'bc')


def _decode(ids):
  return ''.join(_PIECES[i] for i in ids)


def _find(ids, stop_strings):
  return stop_strings_lib.find_stop(ids, _decode(ids), stop_strings, _decode)


def test_a_stop_string_that_ends_within_a_token():
  # 'c' 'aab' 'bc': 'ca' is complete once 'aab' is there.
  assert _find([5, 4, 6], ['ca']) == stop_strings_lib.Stop(2, 'ca')


def test_a_stop_string_over_several_tokens():
  assert _find([0, 5, 5, 0], ['cc']) == stop_strings_lib.Stop(3, 'acc')


def test_the_first_to_be_complete_wins():
  assert _find([0, 1, 5, 1], ['bcb', 'c']) == stop_strings_lib.Stop(3, 'abc')
  assert _find([0, 1], ['c']) is None
  assert _find([], ['c']) is None
  assert _find([5], []) is None


@given(
  ids=st.lists(st.integers(0, len(_PIECES) - 1), max_size=30),
  stop_strings=st.lists(
    st.text('abc', min_size=1, max_size=4), min_size=1, max_size=3
  ),
)
def test_halving_finds_what_looking_at_every_prefix_finds(ids, stop_strings):
  slow = next(
    (
      n
      for n in range(len(ids) + 1)
      if any(stop in _decode(ids[:n]) for stop in stop_strings)
    ),
    None,
  )
  found = _find(ids, stop_strings)
  if slow is None:
    assert found is None
    return
  assert found.num_tokens == slow
  assert found.text.endswith(tuple(stop_strings))
  assert _decode(ids).startswith(found.text)
  assert len(_decode(ids[: slow - 1])) < len(found.text)


@pytest.mark.parametrize('text', ['', 'xx'])
def test_no_end(text):
  assert stop_strings_lib.find_end(text, ['abc', 'ab']) is None


def test_ids_of_tokens_that_hold_a_stop_string():
  words = WordTokenizer(('<pad>', '<eos>', '3', '4', '3.1'), '{prompt}')
  assert stop_strings_lib.ending_ids(words, ('3', 'x')) == (2, 4)
  assert stop_strings_lib.ending_ids(words, ('3 4',)) == ()
  assert stop_strings_lib.ending_ids(words, ()) == ()


def test_every_text_with_such_a_token_holds_the_stop_string():
  folder = pathlib.Path(__file__).parents[1] / 'testdata' / 'tokenizer'
  tokenizer = hf_tokenizer.HFTokenizer(
    folder,
    prompt_template='{prompt}',
    use_chat_template=False,
    system_prompt='',
  )
  stops = ('\n', 'nswer')
  ids = stop_strings_lib.ending_ids(tokenizer, stops)
  assert tokenizer.encode('\n')[0] in ids
  generator = np.random.default_rng(0)
  for stop_id in ids:
    drawn = generator.integers(5, tokenizer.vocab_size, 6)
    text = tokenizer.decode([*drawn, stop_id])
    assert stop_strings_lib.find_end(text, stops) is not None
  others = np.setdiff1d(np.arange(tokenizer.vocab_size), ids)[:, None]
  texts = tokenizer.decode_batch(others, np.ones(others.shape, bool))
  assert not any(stop_strings_lib.find_end(text, stops) for text in texts)


class _Joining:
  """Writes a token's mark where it is the first one only."""

  vocab_size = 3

  def decode(self, ids):
    return self.decode_batch([ids], [[True] * len(ids)])[0]

  def decode_batch(self, ids, mask):
    del mask
    pieces = ('#a', 'b', '!')
    texts = (''.join(pieces[int(i)] for i in row) for row in ids)
    return [text[:1] + text[1:].replace('#', '') for text in texts]


def test_a_text_that_a_token_has_only_at_the_start_does_not_count():
  assert stop_strings_lib.ending_ids(_Joining(), ('#',)) == ()
  assert stop_strings_lib.ending_ids(_Joining(), ('#', '!')) == (2,)
