r"""Canonical form of an answer's text: symbols, markup, LaTeX commands.

`√2`, `\sqrt 2` and `$\sqrt{2}$.` are the same answer. Only text that does not
affect the value is removed; each step is one pass over a bounded text.
"""

import re

_SIGNS = str.maketrans(
  {
    **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)},  # Full width.
    **dict.fromkeys('\u00a0\u2002\u2003\u2007\u2009\u200a\u202f\u3000', ' '),
    **dict.fromkeys('\u200b\u200c\u200d\u2060\ufeff', ''),
    **dict.fromkeys('−–—\u2012﹣', '-'),
    **dict.fromkeys('“”„', '"'),
    **dict.fromkeys('\u2018\u2019', "'"),
    **dict.fromkeys('€£¥₹', r'\$'),
    '、': ', ',
    '。': '.',
    '×': r'\times ',
    '·': r'\cdot ',
    '⋅': r'\cdot ',
    '÷': '/',
    '√': r'\sqrt ',
    '∞': r'\infty ',
    '°': r'^\circ ',
    '≤': r'\le ',
    '≥': r'\ge ',
    '≠': r'\ne ',
    '≈': r'\approx ',
    '±': r'\pm ',
    '\u222a': r'\cup ',
    '∩': r'\cap ',
    '∈': r'\in ',
    '∅': r'\emptyset ',
    '\u211d': r'\mathbb{R}',
    '\u2223': r'\mid ',
    'π': r'\pi ',
    'θ': r'\theta ',
    'α': r'\alpha ',
    'β': r'\beta ',
    'γ': r'\gamma ',
    'λ': r'\lambda ',
    'μ': r'\mu ',
    'φ': r'\varphi ',
    'ω': r'\omega ',
    '½': r'\frac{1}{2}',
    '⅓': r'\frac{1}{3}',
    '⅔': r'\frac{2}{3}',
    '¼': r'\frac{1}{4}',
    '¾': r'\frac{3}{4}',
    '⅕': r'\frac{1}{5}',
    '⅛': r'\frac{1}{8}',
  }
)
_RAISED = '⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ'
_LOWERED = '₀₁₂₃₄₅₆₇₈₉'
_PLAIN = str.maketrans(_RAISED + _LOWERED, '0123456789-+n0123456789')
_RAISED_RUN = re.compile(f'[{_RAISED}]+')
_LOWERED_RUN = re.compile(f'[{_LOWERED}]+')

# (pattern, replacement), applied in order. No pattern has nested repetition.
_REPLACEMENTS = [
  (re.compile(pattern), by)
  for pattern, by in (
    (r'\{([,:])\}', r'\1'),
    (r'(?<!\\)\\!\s*', ''),
    (r'(?<!\\)\\[,;: ]|\\q?quad(?![A-Za-z])|~|[\t\r\n\f\v]', ' '),
    (r'\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\.?', ''),
    (r'\\(?:display|text|script)style(?![A-Za-z])|\\limits(?![a-z])', ''),
    (r'\\[dtc]frac(?![A-Za-z])', r'\\frac'),
    (r'\\math(?:bf|it)\s*\{\s*([A-Za-z0-9])\s*\}', r'\1'),
    (
      r'\\(?:mathrm|textbf|mathbf|textit|textrm|textsf|texttt|mbox|mathit'
      r'|textnormal|operatorname|rm)\s*\{',
      r'\\text{',
    ),
    (r'\\text\s*\{\s*([0-9.,%-]*)\s*\}', r'\1'),
    (r'\\text\s*\{', r'\\text{'),
    (r'\\(?:leq|leqslant|le)(?![A-Za-z])', r'\\le '),
    (r'\\(?:geq|geqslant|ge)(?![A-Za-z])', r'\\ge '),
    (r'\\(?:neq|ne|not\s*=)(?![A-Za-z])', r'\\ne '),
    (r'\\lt(?![A-Za-z])', '<'),
    (r'\\gt(?![A-Za-z])', '>'),
    (r'<=', r'\\le '),
    (r'>=', r'\\ge '),
    (r'!=', r'\\ne '),
    (r'\\(?:varnothing|empty)(?![A-Za-z])|\\\{\s*\\\}', r'\\emptyset '),
    (r'\\(?:lbrace)(?![A-Za-z])', r'\\{'),
    (r'\\(?:rbrace)(?![A-Za-z])', r'\\}'),
    (r'\\(?:lor|vee)(?![A-Za-z])', ' or '),
    (r'\\(?:land|wedge)(?![A-Za-z])', ' and '),
    (r'\\(?:mathbb\s*\{?\s*R\s*\}?|R)(?![A-Za-z])', r'\\mathbb{R}'),
    (r'\^\s*\{\s*\\circ\s*\}|\\degree(?![A-Za-z])|\^\s*\\circ', r'^\\circ '),
    (r'\\sqrt\s+([0-9]+(?:\.[0-9]+)?|[A-Za-z])', r'\\sqrt{\1}'),
    (r'\\sqrt\s*([0-9])', r'\\sqrt{\1}'),
    (
      r'[\[(]?\s*\\begin\{(?:array|b?matrix)\}(?:\s*\{[lcr| ]{0,40}\})?',
      r'\\begin{pmatrix}',
    ),
    (r'\\end\{(?:array|b?matrix)\}\s*[\])]?', r'\\end{pmatrix}'),
    (r'\\(?:dot|cdots)\s*(?=\{[0-9]\})', r'\\overline'),
    (
      r'(?<![A-Za-z\\])(sqrt|sin|cos|tan|log|ln|pi|infty)(?![A-Za-z])',
      r'\\\1 ',
    ),
    (r'(?<![A-Za-z\\])infinity(?![A-Za-z])', r'\\infty '),
    (r'(?<=[A-Za-z0-9)}])\s*\*\*\s*(?=[A-Za-z0-9({-])', '^'),
  )
]
_DOUBLED = re.compile(r'\\\\(?=[A-Za-z(){}\[\]$%])')
_DELIMITERS = re.compile(r'(?<!\\)(?:\\[()\[\]]|\$)')
_LEAD = re.compile(
  r'(?:(?:so|thus|hence|therefore),?\s+)?(?:(?:the|my)\s+)?'
  r'(?:(?:final|correct)\s+)?answer\s*(?:is|:|=)\s*:?\s*',
  re.IGNORECASE,
)
_MARKS = re.compile(
  r'(?:=|:|\\approx|\\therefore|\\Rightarrow|\\implies|\\sim|\s)+'
  r'(?![A-Za-z])'
)
_ROOT = re.compile(r'\\sqrt\s*\(')
_DECORATION = ' *`"\''


def _strip(text: str) -> str:
  """Text without surrounding spaces, Markdown and full stops."""
  for _ in range(4):
    before = text
    text = text.strip(_DECORATION)
    if text.startswith('__') and text.endswith('__'):
      text = text.strip('_')
    if not text.endswith('..'):
      text = text.rstrip('.,;:')
    # A backslash whose space was stripped.
    if text.endswith('\\') and not text.endswith('\\\\'):
      text = text[:-1]
    if text == before:
      break
  return text


def _group_end(text: str, start: int, opening: str, closing: str) -> int:
  """Index of the bracket that closes the one at `start`; -1 if none does."""
  depth = 0
  for i in range(start, len(text)):
    if text[i] == opening:
      depth += 1
    elif text[i] == closing:
      depth -= 1
      if depth == 0:
        return i
  return -1


def _brace_roots(text: str) -> str:
  r"""Text with `\sqrt(x+1)` -> `\sqrt{(x+1)}`, for the first four."""
  for _ in range(4):
    found = _ROOT.search(text)
    if found is None:
      break
    start = found.end() - 1
    end = _group_end(text, start, '(', ')')
    if end < 0:
      break
    inner = text[start : end + 1]
    text = f'{text[: found.start()]}\\sqrt{{{inner}}}{text[end + 1 :]}'
  return text


def unwrap(text: str) -> str:
  r"""Text without braces or a `\text` around all of it."""
  for _ in range(4):
    start = 5 if text.startswith('\\text{') else 0
    if not text.startswith('{', start):
      break
    if _group_end(text, start, '{', '}') != len(text) - 1:
      break
    text = _strip(text[start + 1 : -1])
  return text


def canonical(text: str) -> str:
  r"""Canonical form of an answer, the input of all readers.

  Full-width and Unicode symbols become ASCII and LaTeX; `$`, `\(`, Markdown,
  `\left`, spacing commands, a leading `=` and a full stop at the end are
  removed; all text commands become `\text`. An escaped dollar stays, as `\$`.

  >>> canonical('$**√2**$.')
  '\\sqrt{2}'

  Args:
    text: an answer; the caller bounds its length.
  """
  text = text.translate(_SIGNS)
  text = _RAISED_RUN.sub(lambda run: f'^{{{run[0].translate(_PLAIN)}}}', text)
  text = _LOWERED_RUN.sub(lambda run: f'_{{{run[0].translate(_PLAIN)}}}', text)
  text = _strip(text)
  if '\\\\' in text and 'begin' not in text:
    text = _DOUBLED.sub(r'\\', text)  # Escaped twice.
  if text.startswith('$') and len(re.findall(r'(?<!\\)\$', text)) == 1:
    text = '\\' + text  # One dollar sign is money, two are mathematics.
  text = _strip(_DELIMITERS.sub(' ', text))
  for pattern, by in _REPLACEMENTS:
    text = pattern.sub(by, text)
  text = unwrap(_strip(_brace_roots(text)))
  if text.lower().startswith('\\text{'):
    end = _group_end(text, 5, '{', '}')
    if end > 0 and _LEAD.fullmatch(text[6:end].strip() + ' '):
      text = text[end + 1 :]
  text = text[found.end() :] if (found := _LEAD.match(text)) else text
  if found := _MARKS.match(text):
    text = text[found.end() :]
  return re.sub(' {2,}', ' ', unwrap(_strip(text)))


def words_of(text: str) -> str:
  r"""Canonical text without `\text{…}` around its words."""
  if '\\text{' not in text:
    return text
  pieces, end = [], 0
  while (start := text.find('\\text{', end)) >= 0:
    close = _group_end(text, start + 5, '{', '}')
    if close < 0:
      break
    pieces += [text[end:start], ' ', text[start + 6 : close], ' ']
    end = close + 1
  return ' '.join(''.join([*pieces, text[end:]]).split())


def squeeze(text: str) -> str:
  """Canonical text without spaces, except between two digits."""
  text = re.sub(r'([\^_])\{(\w)\}', r'\1\2', text)
  return re.sub(r'(?<![0-9])\s+|\s+(?![0-9])', '', text)
