"""Inputs of a run by content: its examples, and folders of published files.

A path says where something lay once; whether a run that goes on reads the same
things is a matter of what lies there now. The folder of a run keeps digests.
"""

from collections.abc import Iterator, Sequence
import hashlib
import json
import pathlib
import sys
from typing import Any

from dppo_jax import base
from dppo_jax.data.prompt_stream import PromptStream
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.hosts import coordination
from dppo_jax.runtime.programs.parts import Parts
from dppo_jax.runtime.storage import files
from dppo_jax.runtime.storage import workdir as workdir_lib

_BLOCK = 64  # Examples a digest; says where two sets begin to differ.
# Of a file longer than all of them together, so many pieces are read.
_NUM_PIECES, _PIECE = 64, 2**16
_TOKENIZER = (
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'generation_config.json',
)
_MODEL = ('config.json', 'adapter_config.json', '*.safetensors')
# Key of a folder -> the files of it that are read, and whether a run that
# goes on reads them again; its weights are then those of its checkpoint.
_FOLDERS = {
  'data.tokenizer': (_TOKENIZER, True),
  'rewards.model': ((*_TOKENIZER, *_MODEL), True),
  'model.pretrained': (_MODEL, False),
  'lora.pretrained': (_MODEL, False),
}

Inputs = dict[str, Any]


def digest_examples(examples: Sequence[base.Example]) -> list[str]:
  """Digests of blocks of 64 examples, with every field they have."""
  digests = []
  for begin in range(0, len(examples), _BLOCK):
    lines = [
      json.dumps(example, sort_keys=True, default=str)
      for example in examples[begin : begin + _BLOCK]
    ]
    text = '\n'.join(lines).encode()
    digests.append(hashlib.sha256(text).hexdigest()[:16])
  return digests


def digest_folder(folder: str, patterns: Sequence[str]) -> str:
  """A digest of some files of a folder, wherever it lies.

  Args:
    folder: or a GGUF file, which is read itself; `~` is the home folder.
    patterns: names of files, or globs.

  Returns:
    Of names, sizes and contents, of large files 4 MiB in pieces spread evenly;
    '' where there is none of them.
  """
  place = pathlib.Path(folder).expanduser()
  paths = sorted({path for name in patterns for path in place.glob(name)})
  if place.is_file():
    paths = [place]
  digest = hashlib.sha256()
  for path in paths:
    size = path.stat().st_size
    digest.update(f'{path.name} {size}\n'.encode())
    with path.open('rb') as file:
      for i in range(_NUM_PIECES):
        if size > _NUM_PIECES * _PIECE:
          file.seek(i * (size - _PIECE) // (_NUM_PIECES - 1))
        digest.update(file.read(_PIECE))
  return digest.hexdigest()[:16] if paths else ''


def read(experiment: Experiment, parts: Parts) -> Inputs:
  """Digests of all that a run reads, as JSON can hold them."""
  found: Inputs = {}
  streams: dict[str, PromptStream] = {
    'training data': parts.prompts,
    'held-out data': parts.held_out,
  }
  for name, stream in streams.items():
    examples = stream.all_examples()
    found[name] = {
      'num_examples': len(examples),
      'blocks': digest_examples(examples),
    }
  for key, (patterns, _) in _FOLDERS.items():
    section, name = key.split('.')
    folder = experiment.resolved[section][name]
    if folder:
      found[key] = digest_folder(folder, patterns)
  return found


def differences(recorded: Inputs, mine: Inputs) -> Iterator[tuple[str, str]]:
  """(name, sentence) of everything whose content differs.

  What one of them has not got, or could not read, does not count.
  """
  for name, then in recorded.items():
    now = mine.get(name)
    if not then or not now or then == now:
      continue
    if name in _FOLDERS:
      yield name, f'{name}: its files have another content ({then} -> {now})'
      continue
    counts = [each['num_examples'] for each in (then, now)]
    pairs = zip(then['blocks'], now['blocks'], strict=False)
    same = next(
      (i for i, (a, b) in enumerate(pairs) if a != b),
      min(counts) // _BLOCK,
    )
    text = f'{counts[0]:,} examples'
    if counts[0] != counts[1]:
      text += f' -> {counts[1]:,}'
    first = same * _BLOCK + 1
    yield name, f'{name}: {text}; they differ among the {_BLOCK} from {first:,}'


def settle(experiment: Experiment, parts: Parts, workdir: pathlib.Path) -> None:
  """Records what a new run reads; checks it in a run that goes on.

  Args:
    experiment: the run.
    parts: its parts.
    workdir: its folder.

  Raises:
    ValueError: on every host: what the run was reading has another content
      now, or hosts read different things.
  """
  mine = read(experiment, parts)
  coordination.compare(
    mine,
    lambda one, other: [text for _, text in differences(one, other)],
    'the data and files read',
  )
  coordination.from_primary(lambda: _settle(mine, workdir), 'the data')


def _settle(mine: Inputs, workdir: pathlib.Path) -> None:
  path = workdir / workdir_lib.INPUTS
  recorded: Inputs = {}
  if path.exists() and workdir_lib.has_begun(workdir):
    recorded = workdir_lib.read_json(path)
  refused = []
  for name, text in differences(recorded, mine):
    if name in _FOLDERS and not _FOLDERS[name][1]:
      # Nothing more is read of it, but whoever looks it up should know.
      print(f'{text}; the run goes on from its checkpoint', file=sys.stderr)
    else:
      refused.append(text)
  if refused:
    listed = '\n'.join(f'  {text}' for text in refused)
    raise ValueError(
      f'--workdir: {workdir} holds a run that was reading something else:\n'
      f'{listed}\nRestore these files, or choose another --workdir.'
    )
  # What it was begun with stays on record.
  kept = {name: then for name, then in recorded.items() if then}
  files.write_atomically(path, json.dumps({**mine, **kept}) + '\n')
