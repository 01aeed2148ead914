"""One spelling for what is written in many ways."""

import time

from hypothesis import given
from hypothesis import strategies as st
import pytest

from dppo_jax.rewards.answers.spelling import canonical, squeeze, words_of


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('$**√2**$.', r'\sqrt{2}'),
    ('√(x+1)', r'\sqrt{(x+1)}'),
    (r'x \geqslant 4.', r'x \ge 4'),
    ('(-∞,6)', r'(-\infty ,6)'),
    ('64°', r'64^\circ'),
    ('x²', 'x^{2}'),
    ('1101₂', '1101_{2}'),
    ('1½', r'1\frac{1}{2}'),
    (r'\(1,\!860\)', '1,860'),
    (r'1{,}860', '1,860'),
    (r'\$18', r'\$18'),
    ('$18', r'\$18'),
    ('$18$', '18'),
    ('= 14', '14'),
    (r'\approx 14', '14'),
    (r'\text{The answer is } 42', '42'),
    (r'\textbf{Friday}.', 'Friday'),
    (r'\mathrm{Friday.}', 'Friday'),
    (r'2\text{ m}', r'2\text{ m}'),
    (r'\mathbf{i}', 'i'),
    ('{4}', '4'),
    ('3\\', '3'),
    ('x**2', 'x^2'),
    (r'\left(1,2\right)', '(1,2)'),
    ('0.333...', '0.333...'),
    (r'\\left(1,2\\right)', '(1,2)'),
    (r'\{ \}', r'\emptyset'),
    ('   ', ''),
  ],
)
def test_the_one_spelling(text, expected):
  assert canonical(text) == expected


def test_rows_of_a_matrix_stay_apart():
  text = r'\left[\begin{array}{cc}1 & 2 \\ 3 & 4\end{array}\right]'
  assert canonical(text) == r'\begin{pmatrix}1 & 2 \\ 3 & 4\end{pmatrix}'


def test_space_between_digits_is_kept():
  assert squeeze('3 7') == '3 7'
  assert squeeze('x + 3 y') == 'x+3y'
  assert squeeze('x^{2}') == squeeze('x ^2')


def test_words_leave_their_braces():
  assert words_of(r'\text{(C)} 42 \text{ cm}') == '(C) 42 cm'
  assert words_of(r'\text{open') == r'\text{open'


@given(st.text(alphabet='\\{}()$*.=x1 ,√text', max_size=60))
def test_any_text_has_a_spelling(text):
  assert isinstance(canonical(text), str)


def test_a_thousand_characters_take_no_time():
  start = time.process_time()
  for text in (
    '\\text{',
    '\\left',
    '{,}',
    '$',
    '\\sqrt(',
    ' ',
    '**',
    '^\\circ',
  ):
    canonical((text * 1000)[:1000])
  assert time.process_time() - start < 2.0
