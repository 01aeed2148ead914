"""Docstrings as Markdown: examples and formulas become code fences.

An extension of griffe, mkdocstrings' parser.
"""

import re

import griffe

_SECTION = re.compile(r'(?:Args|Attributes|Raises|Returns|Yields|Numerics):')


class Fences(griffe.Extension):
  """Fences doctests, and indented text before the first section."""

  def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
    """Changes the docstring of a module, class, function or attribute."""
    del kwargs
    if obj.docstring is not None:
      obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
  """Docstring with its examples and formulas in fences."""
  found: list[str] = []
  inside = ''  # The language of the fence that is open.
  in_section = False

  def switch(language: str) -> None:
    nonlocal inside
    if language != inside:
      if inside:
        found.append('```')
      if language:
        found.extend(['', f'```{language}'])
      inside = language

  for line in text.split('\n'):
    in_section = (in_section and line[:1] in ('', ' ')) or bool(
      _SECTION.match(line)
    )
    if line.startswith('>>>'):
      switch('pycon')
    elif inside != 'pycon' or not line:  # Else its continuation, or its output.
      switch('text' if line.startswith('  ') and not in_section else '')
    found.append(line)
  switch('')
  return '\n'.join(found)
