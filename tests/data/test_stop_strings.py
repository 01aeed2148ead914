from hypothesis import given
from hypothesis import strategies as st
import pytest

from dppo_jax.data import stop_strings as stop_strings_lib

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
