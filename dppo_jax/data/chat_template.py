"""Chat templates: jinja2 programs from a model's folder, run in a sandbox.

A template is somebody else's program. It sees the messages and the special
tokens, cannot reach attributes or change what it is given, and is refused
where it is long, writes without end, or multiplies text beyond all bounds.
"""

from collections.abc import Callable, Mapping, Sequence, Set
import datetime
import json
from typing import Any, NoReturn

import jinja2
from jinja2 import ext, meta, nodes, sandbox

from dppo_jax.suggestions import suggest

MAX_TEMPLATE_LENGTH = 200_000  # Characters; published ones have up to 20,000.
MAX_TEXT_LENGTH = 2_000_000  # Characters that a template may write.
_MAX_EXPONENT = 64
# A resumed run must see the prompts it was started with, whatever the date;
# Llama 3's own template falls back to this day.
_TODAY = datetime.datetime(2024, 7, 26)

_UNUSED = ('tools', 'documents')  # Templates ask whether there are any.
# What a template is given in any case; raise_exception and the like too.
_OURS = {'messages', 'add_generation_prompt', 'raise_exception', 'strftime_now'}

Messages = Sequence[Mapping[str, str]]


class _Sandbox(sandbox.ImmutableSandboxedEnvironment):
  """Also bounds the operators that make much out of little."""

  intercepted_binops = frozenset(('*', '**'))

  def call_binop(
    self, context: Any, operator: str, left: Any, right: Any
  ) -> Any:
    """Refuses repetitions and powers that nobody needs in a prompt."""
    if operator == '**' and isinstance(right, int) and right > _MAX_EXPONENT:
      raise sandbox.SecurityError(f'an exponent of {right}')
    for text, times in ((left, right), (right, left)):
      if isinstance(text, (str, list, tuple)) and isinstance(times, int):
        if len(text) * times > MAX_TEXT_LENGTH:
          raise sandbox.SecurityError(f'{len(text)} items {times} times')
    return super().call_binop(context, operator, left, right)


class _Generation(ext.Extension):
  """{% generation %} marks what an assistant says; it is written as it is."""

  tags = {'generation'}  # noqa: RUF012

  def parse(self, parser: Any) -> nodes.Node:
    """Returns the body alone."""
    line = next(parser.stream).lineno
    body = parser.parse_statements(('name:endgeneration',), drop_needle=True)
    return nodes.Scope(body, lineno=line)


def _raise(message: str) -> NoReturn:
  raise jinja2.TemplateError(message)


def _to_json(value: Any, **options: Any) -> str:
  return json.dumps(value, ensure_ascii=False, **options)


def _now(form: str) -> str:
  return _TODAY.strftime(form)


def _check_arguments(
  given: Mapping[str, Any], known: Set[str], origin: str
) -> None:
  """Refuses an argument that would change nothing."""
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
  """(messages, generation prompt or not) -> the text before the answer.

  Args:
    source: of the template.
    special_tokens: 'bos_token', 'eos_token' and so on, to the template by name.
    origin: of the template, for error messages.
    arguments: what else the template is given, 'enable_thinking' and the like.

  Returns:
    A function of messages, {'role': …, 'content': …} each, and whether the
    assistant's turn is opened, as it is for sampling. It raises ValueError
    where the template refuses them, fails, or writes more than
    `MAX_TEXT_LENGTH` characters.

  Raises:
    ValueError: the template is longer than `MAX_TEMPLATE_LENGTH`, or is none,
      or does not read one of the arguments.
  """
  if len(source) > MAX_TEMPLATE_LENGTH:
    raise ValueError(
      f'data.chat_template: {origin} has {len(source):,} characters; at most'
      f' {MAX_TEMPLATE_LENGTH:,}. Shorten it, or set data.chat_template=False.'
    )
  environment = _Sandbox(
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=[_Generation, ext.loopcontrols],
  )
  environment.filters['tojson'] = _to_json
  environment.globals.update(raise_exception=_raise, strftime_now=_now)
  try:
    template = environment.from_string(source)
  except (jinja2.TemplateError, RecursionError) as error:
    raise ValueError(
      f'data.chat_template: {origin} is no template ({error}); mend it, or set'
      ' data.chat_template=False.'
    ) from error
  given = dict(arguments or {})
  if given:
    known = meta.find_undeclared_variables(environment.parse(source))
    _check_arguments(given, known - special_tokens.keys() - _OURS, origin)

  def render(messages: Messages, opened: bool = True) -> str:
    pieces, length = [], 0
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
    # A template is a program: it may fail as programs do.
    except Exception as error:
      raise ValueError(
        f'data.chat_template: {origin} fails on a prompt'
        f' ({type(error).__name__}: {error}); mend it, or set'
        ' data.chat_template=False.'
      ) from error
    return ''.join(pieces)

  return render
