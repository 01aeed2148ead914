"""Format rewards: whether a completion has the format the prompt asks for."""

from collections.abc import Mapping, Sequence
from typing import Any

from dppo_jax.rewards.answers import extraction
from dppo_jax.rewards.verdicts import MALFORMED, RIGHT, Verdict


def _in_order(text: str, marks: Sequence[str]) -> list[str] | None:
  """The pieces around marks that occur once each, in order; else None."""
  if any(text.count(mark) != 1 for mark in marks):
    return None
  pieces, rest = [], text
  for mark in marks:
    before, found, rest = rest.partition(mark)
    if not found:
      return None
    pieces.append(before)
  return [*pieces, rest]


def think_answer(completion: str, example: Mapping[str, Any]) -> Verdict:
  """Right if it is exactly `<think>…</think> <answer>…</answer>`.

  Each tag occurs once, neither holds only space, and only space lies between
  and around them.
  """
  del example
  marks = ('<think>', '</think>', '<answer>', '</answer>')
  pieces = _in_order(completion, marks)
  if pieces is None:
    return MALFORMED
  filled = [bool(piece.strip()) for piece in pieces]
  return RIGHT if filled == [False, True, False, True, False] else MALFORMED


def thought(completion: str, example: Mapping[str, Any]) -> Verdict:
  """Right if one `</think>` ends the reasoning and an answer follows it.

  For prompts that end in `<think>`; one at the completion's start is allowed.
  """
  del example
  text = completion.lstrip().removeprefix('<think>')
  pieces = _in_order(text, ('</think>',))
  if pieces is None or '<think>' in text:
    return MALFORMED
  return RIGHT if all(piece.strip() for piece in pieces) else MALFORMED


def one_boxed(completion: str, example: Mapping[str, Any]) -> Verdict:
  r"""Right if there is one `\boxed{…}`, closed and not empty."""
  del example
  if completion.count('\\boxed') != 1:
    return MALFORMED
  answer = extraction.last_boxed(completion)
  return RIGHT if answer and answer.strip() else MALFORMED
