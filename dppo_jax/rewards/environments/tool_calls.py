"""Tool calls in a message, in the form of Qwen's and Hermes' chat templates.

  <tool_call>
  {"name": "calculator", "arguments": {"expression": "3 * (4 + 5)"}}
  </tool_call>

A message is hostile: it is searched in linear time, and its JSON is bounded.
"""

from typing import Any, NamedTuple

from dppo_jax import bounded_json

BEGIN, END = '<tool_call>', '</tool_call>'
MAX_LENGTH = 4096  # Characters of a call.


class ToolCall(NamedTuple):
  """A call of a tool by its name.

  Attributes:
    name: of the tool.
    arguments: by name, JSON values.
  """

  name: str
  arguments: dict[str, Any]


def find_call(message: str) -> ToolCall | None:
  """The first tool call of a message; None where there is none.

  Raises:
    ValueError: it has no end or is no JSON object of a name and arguments; the
      text says so to whoever made the call.
  """
  _, begun, rest = message.partition(BEGIN)
  if not begun:
    return None
  text, ended, _ = rest[: MAX_LENGTH + len(END)].partition(END)
  if not ended:
    raise ValueError(f'no {END} within {MAX_LENGTH} characters after {BEGIN}')
  try:
    call = bounded_json.parse(text, max_containers=64)
  except ValueError:
    raise ValueError('the tool call is no JSON') from None
  if (
    not isinstance(call, dict)
    or not isinstance(call.get('name'), str)
    or not isinstance(call.get('arguments'), dict)
  ):
    raise ValueError(
      'the tool call is no object with a "name" and an object of "arguments"'
    )
  return ToolCall(call['name'], call['arguments'])


def respond(text: str) -> str:
  """What a tool answers, in the form of the same templates."""
  return f'<tool_response>\n{text}\n</tool_response>'
