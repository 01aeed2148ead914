"""Scores of checkpoints that were evaluated after they had been written."""

import json
import pathlib

from dppo_jax.runtime.storage.files import write_atomically

FILE = 'scores.json'

Scores = dict[str, dict[str, float]]


def read(folder: pathlib.Path) -> Scores:
  """Step -> metric -> score; none where the file is damaged."""
  try:
    found = json.loads((folder / FILE).read_text())
  except (OSError, ValueError, RecursionError):
    return {}
  if not isinstance(found, dict):
    return {}
  return {
    step: {m: s for m, s in by.items() if type(s) in (int, float)}
    for step, by in found.items()
    if isinstance(by, dict)
  }


def add(folder: pathlib.Path, step: int, metric: str, score: float) -> None:
  """Adds what an evaluation found."""
  scores = read(folder)
  scores.setdefault(str(step), {})[metric] = score
  write_atomically(folder / FILE, json.dumps(scores) + '\n')


def drop(folder: pathlib.Path, step: int) -> None:
  """Forgets a checkpoint that was set aside."""
  scores = read(folder)
  if scores.pop(str(step), None) is not None:
    write_atomically(folder / FILE, json.dumps(scores) + '\n')
