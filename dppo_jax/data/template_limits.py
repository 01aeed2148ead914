"""Limits of what a chat template may do: how long it runs, what it builds.

A template is a program with loops and macros, and filters that make much out
of little. It has a budget: each turn of a loop and each call of a macro costs
as much as its body is long, and each filter, method and operator as much as it
reads and writes. What would cost more than is left is refused before it is
done.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any, cast

from jinja2 import Environment, nodes, sandbox

MAX_TEXT_LENGTH = 2_000_000  # Characters that a template may write, or build.
# Characters and expressions; the longest published template spends 200,000
# on a conversation of 100 turns.
MAX_WORK = 50_000_000
_MAX_EXPONENT = 64
_MAX_NUMBER = 100_000  # Of what widths, counts and the like may be.
_TICK, _CONCAT = 'dppo_tick', 'dppo_concat'


def _size(value: Any) -> int:
  """How long a value is; 1 of what has no length."""
  sized = isinstance(value, str | list | tuple | dict | range)
  return 1 + len(value) if sized else 1


class BoundedSandbox(sandbox.ImmutableSandboxedEnvironment):
  """A sandbox with a budget, which `begin` fills up."""

  intercepted_binops = frozenset(('*', '**', '+', '%'))

  def __init__(self, **options: Any):
    super().__init__(**options)
    self._left = MAX_WORK
    self.filters = {
      name: self._bounded(filter_) for name, filter_ in self.filters.items()
    }
    self.globals = {k: v for k, v in self.globals.items() if k != 'lipsum'}
    self.globals[_TICK] = self._spend
    self.filters[_CONCAT] = self._concat

  def begin(self) -> None:
    """Starts a run of the template."""
    self._left = MAX_WORK

  def _spend(self, amount: int) -> str:
    self._left -= amount
    if self._left < 0:
      raise sandbox.SecurityError(
        f'it takes more than {MAX_WORK:,} characters and steps'
      )
    return ''

  def _concat(self, first: Any, *rest: Any) -> str:
    texts = [str(each) for each in (first, *rest)]
    self._check(sum(map(len, texts)))
    return ''.join(texts)

  def _check(self, size: int) -> None:
    if size > MAX_TEXT_LENGTH:
      raise sandbox.SecurityError(f'{size:,} characters or items at once')
    self._spend(size)

  def _check_arguments(self, arguments: Sequence[Any]) -> None:
    """Refuses what may make too much: long texts in many places, widths."""
    for value in arguments:
      number = isinstance(value, int | float) and not isinstance(value, bool)
      if number and abs(value) > _MAX_NUMBER:
        raise sandbox.SecurityError(f'an argument of {value:g}')
    sizes = sorted((_size(value) for value in arguments), reverse=True)
    # As many places as the first is long, each with the second.
    if len(sizes) > 1 and sizes[1] > 1:
      places = sizes[0] * sizes[1]
      if places > 100 * MAX_TEXT_LENGTH:
        raise sandbox.SecurityError(f'up to {places:,} characters at once')
    self._spend(sum(sizes))

  def _bounded(self, filter_: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(filter_)  # Keeps the marks of what jinja passes first.
    def bounded(*arguments: Any, **named: Any) -> Any:
      self._check_arguments([*arguments, *named.values()])
      result = filter_(*arguments, **named)
      self._check(_size(result))
      return result

    return bounded

  def call(
    __self,  # The template may name an argument `self`.
    __context: Any,
    __obj: Any,
    *args: Any,
    **kwargs: Any,
  ) -> Any:
    """Calls what a template calls: methods, macros, functions."""
    if __obj != __self._spend:
      owner = getattr(__obj, '__self__', '')  # The text of a method.
      __self._check_arguments([owner, *args, *kwargs.values()])
    result = super().call(__context, __obj, *args, **kwargs)
    __self._check(_size(result))
    return result

  def call_binop(
    self, context: Any, operator: str, left: Any, right: Any
  ) -> Any:
    """Refuses repetitions, powers and widths that nobody needs in a prompt."""
    if operator == '**' and isinstance(right, int) and right > _MAX_EXPONENT:
      raise sandbox.SecurityError(f'an exponent of {right}')
    if operator == '%' and isinstance(left, str):
      raise sandbox.SecurityError('text % values; use ~ instead')
    if operator == '*':
      for text, times in ((left, right), (right, left)):
        if isinstance(text, (str, list, tuple)) and isinstance(times, int):
          if len(text) * times > MAX_TEXT_LENGTH:
            raise sandbox.SecurityError(f'{len(text)} items {times} times')
    for number in (left, right):
      if isinstance(number, int) and number.bit_length() > 4096:
        raise sandbox.SecurityError('a number of more than 4,096 bits')
    self._check(_size(left) + _size(right) if operator == '+' else 1)
    return super().call_binop(context, operator, left, right)

  def _parse(self, source: str, name: str | None, filename: str | None) -> Any:
    """Puts the budget into a template, after it has been parsed."""
    tree = super()._parse(source, name, filename)
    _count(tree)
    return tree


def _tick(weight: int) -> nodes.Node:
  call = nodes.Call(
    nodes.Name(_TICK, 'load'), [nodes.Const(weight)], [], None, None
  )
  return nodes.ExprStmt(call)


def _count(node: nodes.Node) -> int:
  """Makes loops and macros pay for their bodies; how many nodes there are."""
  for name, value in list(node.iter_fields()):
    if isinstance(value, nodes.Concat):
      setattr(node, name, _as_filter(value))
    elif isinstance(value, list):
      value[:] = [
        _as_filter(one) if isinstance(one, nodes.Concat) else one
        for one in value
      ]
  size = 1 + sum(map(_count, list(node.iter_child_nodes())))
  if isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock):
    tick = _tick(size)
    tick.set_lineno(node.lineno, override=True)
    tick.set_environment(cast(Environment, node.environment))
    node.body.insert(0, tick)
  return size


def _as_filter(node: nodes.Concat) -> nodes.Node:
  """`a ~ b` as a filter, since no operator of a sandbox can be asked here."""
  first, *rest = node.nodes
  found = nodes.Filter(first, _CONCAT, rest, [], None, None)
  found.set_lineno(node.lineno, override=True)
  found.set_environment(cast(Environment, node.environment))
  return found
