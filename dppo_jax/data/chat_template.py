"""Chat templates: jinja2 programs from a model's folder, run in a sandbox.

A template is untrusted code. It sees the messages and the special tokens,
cannot access attributes or mutate its inputs, and fails if it is too long,
runs too long, or writes or builds too much text; see `template_limits`.
"""

from collections.abc import Callable, Mapping, Sequence, Set
import datetime
import json
import re
from typing import Any, NoReturn

import jinja2
from jinja2 import ext, meta, nodes

from dppo_jax.data.template_limits import MAX_TEXT_LENGTH, BoundedSandbox
from dppo_jax.suggestions import suggest

MAX_TEMPLATE_LENGTH = 200_000  # Characters; published ones have up to 20,000.
# A fixed date, so that a resumed run renders the same prompts; it is the
# default of Llama 3's template.
_TODAY = datetime.datetime(2024, 7, 26)

_UNUSED = ('tools', 'documents')  # Defined as None: templates test them.
# Names defined for every template.
_OURS = {'messages', 'add_generation_prompt', 'raise_exception', 'strftime_now'}

# Markers, to find the text around them.
_WORDS, _REPLY = 'What the assistant says.', 'What it is told.'

Messages = Sequence[Mapping[str, str]]


class _Generation(ext.Extension):
  """{% generation %} marks an assistant's text, which is rendered unchanged."""

  tags = {'generation'}  # noqa: RUF012

  def parse(self, parser: Any) -> nodes.Node:
    """Returns the body of the block."""
    line = next(parser.stream).lineno
    body = parser.parse_statements(('name:endgeneration',), drop_needle=True)
    return nodes.Scope(body, lineno=line)


def _one_line(error: Exception) -> str:
  """Text of an error, which the template may have chosen, cut short."""
  return ' '.join(str(error)[:1000].split())[:200]


def _raise(message: str) -> NoReturn:
  raise jinja2.TemplateError(message)


def _to_json(value: Any, **options: Any) -> str:
  return json.dumps(value, ensure_ascii=False, **options)


def _now(form: str) -> str:
  return _TODAY.strftime(form)


def _make_environment() -> BoundedSandbox:
  """Sandbox with the tags, filters and functions that templates expect."""
  environment = BoundedSandbox(
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=[_Generation, ext.loopcontrols],
  )
  environment.filters['tojson'] = _to_json
  environment.globals.update(raise_exception=_raise, strftime_now=_now)
  return environment


def _check_arguments(
  given: Mapping[str, Any], known: Set[str], origin: str
) -> None:
  """Raises on an argument that the template does not read."""
  for name in given:
    if name in known:
      continue
    raise ValueError(
      f'data.chat_template_arguments: {origin} does not read'
      f' {name!r}{suggest(name, sorted(known))}'
    )


def compile_template(
  source: str,
  special_tokens: Mapping[str, str],
  origin: str,
  arguments: Mapping[str, Any] | None = None,
) -> Callable[[Messages, bool], str]:
  """Render function (messages, add_generation_prompt) -> text.

  Args:
    source: the template's text.
    special_tokens: 'bos_token', 'eos_token', …, passed by name.
    origin: the template's file, for error messages.
    arguments: further template arguments, such as 'enable_thinking'.

  Returns:
    A function of messages, {'role': …, 'content': …} each, and of whether to
    open the assistant's turn, as for sampling. It raises ValueError if the
    template rejects the messages, fails, writes more than `MAX_TEXT_LENGTH`
    characters, or takes more than `MAX_WORK` steps.

  Raises:
    ValueError: the template is longer than `MAX_TEMPLATE_LENGTH`, is malformed,
      or does not read one of the arguments.
  """
  if len(source) > MAX_TEMPLATE_LENGTH:
    raise ValueError(
      f'data.chat_template: {origin} has {len(source):,} characters; at most'
      f' {MAX_TEMPLATE_LENGTH:,}. Shorten it, or set data.chat_template=False.'
    )
  environment = _make_environment()
  try:
    template = environment.from_string(source)
  # Of what jinja lets pass, Python may yet refuse to compile some.
  except Exception as error:
    raise ValueError(
      f'data.chat_template: {origin} is no valid template'
      f' ({_one_line(error)}); fix it, or set data.chat_template=False.'
    ) from error
  given = dict(arguments or {})
  if given:
    known = meta.find_undeclared_variables(environment.parse(source))
    _check_arguments(given, known - special_tokens.keys() - _OURS, origin)

  def render(messages: Messages, opened: bool = True) -> str:
    pieces, length = [], 0
    environment.begin()
    try:
      for piece in template.generate(
        **special_tokens,
        **given,
        messages=[dict(message) for message in messages],
        add_generation_prompt=opened,
        **{name: None for name in _UNUSED if name not in given},
      ):
        pieces.append(piece)
        length += len(piece)
        if length > MAX_TEXT_LENGTH:
          _raise(f'it writes more than {MAX_TEXT_LENGTH:,} characters')
    # A template is a program and may raise anything.
    except Exception as error:
      raise ValueError(
        f'data.chat_template: {origin} fails on a prompt'
        f' ({type(error).__name__}: {_one_line(error)}); fix it, or set'
        ' data.chat_template=False.'
      ) from error
    return ''.join(pieces)

  return render


def around_reply(
  render: Callable[[Messages, bool], str], special: re.Pattern[str]
) -> tuple[str, str]:
  """Text between the end of an assistant's turn and a reply, and after it.

  Args:
    render: of `compile_template`.
    special: matches special tokens. The first after the assistant's words ends
      its turn, and was sampled.

  Raises:
    ValueError: the template fails, or drops one of the two messages.
  """
  turns = (('user', 'Hello'), ('assistant', _WORDS), ('user', _REPLY))
  rendered = render([{'role': r, 'content': c} for r, c in turns], True)
  _, words, behind = rendered.rpartition(_WORDS)
  before, told, after = behind.partition(_REPLY)
  if not words or not told:
    raise ValueError(
      'data.chat_template: it does not render an answer and the message after'
      ' it; set data.chat_template=False, or use another template.'
    )
  found = special.search(before)
  return before[found.end() :] if found else before, after
