"""Settings in the files of published models that nothing here reads.

Told once, where a run starts and by the doctor: such a key may change what the
model computes, and then other tools would run another model than trained here.
"""

from collections.abc import Iterator, Sequence
import pathlib
from typing import Any

from dppo_jax.gguf_files import as_folder
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.hub import hf_config, json_files, peft_io
from dppo_jax.runtime.hub.published_keys import (
  ADAPTER,
  GENERATION,
  MODEL,
  TOKENIZER,
  TOKENIZER_SETTINGS,
  Table,
)

_GENERATION = 'generation_config.json'
_MAX_VALUE = 60  # Characters of a value that is shown.


def notes(experiment: Experiment, tokenizer: Any) -> Iterator[str]:
  """A sentence for each file that says something unread.

  Args:
    experiment: the run.
    tokenizer: of the run; one of a published model has notes of its own.

  Raises:
    ValueError: a file is damaged.
  """
  for named, is_adapter in (
    (experiment.model.pretrained, False),
    (experiment.rewards.model.folder, False),
    (experiment.lora.pretrained if experiment.lora else '', True),
  ):
    folder = pathlib.Path(named).expanduser()
    if named and is_adapter:
      yield from _unread(folder / peft_io.CONFIG, ADAPTER)
    elif named:
      yield from of_model(folder / hf_config.CONFIG)
  if experiment.data.tokenizer:
    folder = pathlib.Path(experiment.data.tokenizer).expanduser()
    yield from _unread(folder / TOKENIZER_SETTINGS, TOKENIZER)
    yield from _unread(folder / _GENERATION, GENERATION)
    for text in getattr(tokenizer, 'notes', ()):
      yield f'{folder}: {text}.'


def ends_turn(
  behind: str,
  end: int | None,
  eos_ids: Sequence[int],
  stop_strings: Sequence[str],
) -> bool:
  """Whether the end of a chat turn ends a completion.

  Args:
    behind: text that the template writes after the assistant's message.
    end: its first special token; None if there is none.
    eos_ids: ids that end a completion.
    stop_strings: texts that end a completion.
  """
  return end in eos_ids or any(stop in behind for stop in stop_strings)


def of_turns(experiment: Experiment, tokenizer: Any) -> Iterator[str]:
  """A sentence if the end of the assistant's turn ends no completion.

  Args:
    experiment: the run.
    tokenizer: of the run.
  """
  if not experiment.data.chat_template:
    return
  sampling = experiment.sampling
  behind, end = tokenizer.turn_end()
  if ends_turn(behind, end, sampling.eos_ids, sampling.stop_strings):
    return
  closing = behind.strip().partition('\n')[0]
  if not closing:
    yield (
      "the chat template does not mark the end of the assistant's turn; a"
      ' completion ends where the model writes its end token.'
    )
    return
  yield (
    f"the chat template ends the assistant's turn with {closing!r}, and"
    f' completions end with the ids {list(sampling.eos_ids)}: set'
    f' sampling.stop_strings=({closing!r},), or they go on to the length limit.'
  )


def of_model(path: pathlib.Path) -> Iterator[str]:
  """Likewise, of a config.json; a run may have outlived it."""
  if not as_folder.is_file(path):
    return
  raw = json_files.read_json(path)
  yield from _unread(path, MODEL[hf_config.has_experts(raw)])
  if raw.get('quantization_config'):
    yield (
      f'{path}: has quantization_config, and weights are read as they are'
      ' stored, not quantized; exports leave it out.'
    )


def _unread(path: pathlib.Path, table: Table) -> Iterator[str]:
  if not as_folder.is_file(path):
    return
  found = table.unknown(json_files.read_json(path))
  if found:
    listed = ', '.join(
      f'{key}={_short(value)}' for key, value in sorted(found.items())
    )
    yield f'{path}: nothing here reads {listed}.'


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= _MAX_VALUE else f'{text[:_MAX_VALUE]}…'
