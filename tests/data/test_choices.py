import pytest

from dppo_jax.data import choices


@pytest.mark.parametrize(
  'value',
  [
    ['21', '21.5', '22'],
    [21, 21.5, 22],
    ['A)21', 'B)21.5', 'C)22'],
    ['(A) 21', '(B) 21.5', '(C)22'],
    ['A. 21', 'B. 21.5', 'C: 22'],
    {'A': '21', 'B': '21.5', 'C': 22},
  ],
)
def test_options_lose_their_letters(value):
  assert choices.read_options(value) == ('21', '21.5', '22')


def test_letters_that_are_not_all_there_stay():
  texts = ('A) fine', 'no letter')
  assert choices.read_options(list(texts)) == texts


@pytest.mark.parametrize(
  ('value', 'match'),
  [
    ('A) 1 B) 2', 'options as a str'),
    (['1'], '1 options; from 2'),
    ([True, 'x'], 'as a bool'),
    ([['1'], '2'], 'as a list'),
    ({'1': 'x', '2': 'y'}, 'options named 1, 2'),
    (['x'] * 27, '27 options'),
    ([float('nan'), 'I only'], 'an option is nan, .*write the text'),
  ],
)
def test_what_is_no_list_of_options(value, match):
  with pytest.raises(ValueError, match=match):
    choices.read_options(value)


@pytest.mark.parametrize(
  ('value', 'letter'),
  [('B', 'B'), ('b', 'B'), ('(B)', 'B'), ('B)', 'B'), (1, 'B'), (1.0, 'B'),
   ('7', 'C'), (' 5 ', 'B')],
)  # fmt: skip
def test_the_right_one_by_letter_number_and_text(value, letter):
  assert choices.read_answer(value, ('3', '5', '7')) == letter


@pytest.mark.parametrize(
  ('value', 'options', 'match'),
  [
    # A number in quotes is a text, never a place in the list.
    ('1', ('3', '5'), "'1' is no letter of 2 options, and the text of 0"),
    ('3', ('3', '3'), 'the text of 2 of them'),
    (2, ('3', '5'), 'the answer 2 of 2 options'),
    (-1, ('3', '5'), 'the answer -1 of 2 options'),
    ('C', ('3', '5'), 'is no letter'),
    (True, ('3', '5'), 'as a bool'),
    (None, ('3', '5'), 'as a NoneType'),
  ],
)
def test_an_answer_that_is_none_of_them(value, options, match):
  with pytest.raises(ValueError, match=match):
    choices.read_answer(value, options)


def test_lines_of_a_prompt():
  assert choices.render(('x', 'y')) == '(A) x\n(B) y'


@pytest.mark.parametrize('value', ['AC', 'A C', 'A,C', 'A, C'])
def test_several_right_ones(value):
  assert choices.read_answer(value, ('3', '5', '7')) == 'AC'
  # A text of an option goes first.
  assert choices.read_answer(value, ('3', value, '7')) == 'B'


@pytest.mark.parametrize('value', ['CA', 'AA', 'AD', 'A-C', 'ac', 'A   C'])
def test_what_is_no_list_of_letters(value):
  with pytest.raises(ValueError, match='is no letter'):
    choices.read_answer(value, ('3', '5', '7'))
  with pytest.raises(ValueError, match='is no letter'):
    choices.read_answer('AC', ())  # Options unknown: any word in capitals.


def test_numbers_as_options_keep_their_digits():
  options = choices.read_options([1234567.0, 1234567.5, 12345678])
  assert options == ('1234567', '1234567.5', '12345678')
