from dppo_jax.experiments.docs.docstrings import fenced


def test_formulas_and_examples_are_fenced():
  text = (
    'Sum.\n\n  s = a + b\n\nMore.\n\nArgs:\n  a: b.\n    c.\n\n>>> 1 + 1\n2\n'
  )
  assert fenced(text) == (
    'Sum.\n\n\n```text\n  s = a + b\n```\n\nMore.\n\nArgs:\n  a: b.\n    c.\n\n'
    '\n```pycon\n>>> 1 + 1\n2\n```\n'
  )


def test_a_plain_docstring_stays():
  text = 'One line.\n\nArgs:\n  x: y.\n\nReturns:\n  z.'
  assert fenced(text) == text
