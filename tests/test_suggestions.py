import pytest

from dppo_jax.suggestions import nearest, suggest


@pytest.mark.parametrize(
  ('got', 'expected'),
  [
    ('binray', "; did you mean 'binary'? Known: topk, binary."),
    ('xyzzy', '. Known: topk, binary.'),
    (7, '. Known: topk, binary.'),
  ],
)
def test_the_nearest_is_named_and_all_are_listed_in_their_order(got, expected):
  assert suggest(got, ('topk', 'binary')) == expected


def test_where_nothing_is_known_it_says_so():
  assert suggest('a', ()) == '. Known: none.'


@pytest.mark.parametrize('got', ['Binary_TV', 'binary-tv', 'BINARY_TV'])
def test_capitals_and_dashes_do_not_count(got):
  assert nearest(got, ('topk_tv', 'binary_tv')) == 'binary_tv'


def test_a_part_of_a_name_stands_for_it():
  assert nearest('H100', ('v5e:2x2', 'gpu:8xh100')) == 'gpu:8xh100'
  assert nearest('5e', ('v5e:2x2', 'gpu:8xh100')) == ''


def test_nothing_near_is_nothing():
  assert nearest('xyzzy', ('topk',)) == ''
