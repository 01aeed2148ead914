"""Damages copies of every kind of file that a run reads, and reads them.

python -m tests.faults.damaged [--every=N]

A case is right if the reader returns the same value, falls back to a value of
the same type, or raises a ValueError or OSError of few lines that names the
file, within `LIMIT_S`. Everything else, any other exception first of all, is
wrong. Outside CI, whose short form is tests/faults/test_damaged.py.
"""

import argparse
import collections
from collections.abc import Callable, Iterator
import contextlib
import copy
import json
import logging
import pathlib
import shutil
import signal
import tempfile
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from dppo_jax.analysis import table
from dppo_jax.analysis.sweeps import plan
from dppo_jax.analysis.sweeps.variants import Variant
from dppo_jax.conformance import golden, hf_models
from dppo_jax.data import record_files
from dppo_jax.data.hf_tokenizer import HFTokenizer
from dppo_jax.models.lora import LoraConfig
from dppo_jax.runtime.hub import hf_config, peft_io, safetensors_io
from dppo_jax.runtime.ledger import files as ledger_files
from dppo_jax.runtime.reporting import summary
from dppo_jax.runtime.storage import checksums, metrics_log, workdir
from tests.support import ledger_records

LIMIT_S = 20  # Seconds of wall time per case, against hangs.
MAX_LINES = 8  # Of a message; some list all problems of a file.
_DATA = pathlib.Path(__file__).parents[1] / 'testdata'
_MODEL = _DATA / 'hf_models' / 'qwen2_tied'
_LORA = LoraConfig(rank=4, alpha=8.0, targets=('query',))


class Kind(NamedTuple):
  """A kind of file.

  Attributes:
    name: of the file.
    make: writes it, and what is read with it, into a folder.
    read: reads the folder.
  """

  name: str
  make: Callable[[pathlib.Path], Any]
  read: Callable[[pathlib.Path], Any]


def _copy(source: pathlib.Path) -> Callable[[pathlib.Path], Any]:
  return lambda folder: shutil.copytree(source, folder, dirs_exist_ok=True)


def _tokenizer_files(folder: pathlib.Path) -> None:
  _copy(_DATA / 'tokenizer')(folder)
  path = folder / 'tokenizer_config.json'
  settings = json.loads(path.read_text())
  template = settings.pop('chat_template', '{{ messages[0].content }}')
  (folder / 'chat_template.jinja').write_text(template)
  path.write_text(json.dumps({**settings, 'chat_template': template}))


def _tokenize(folder: pathlib.Path) -> list[int]:
  tokenizer = HFTokenizer(
    folder, prompt_template='{prompt}', use_chat_template=True, system_prompt=''
  )
  return list(tokenizer.encode_prompt('What is 1 + 1?'))


def _tokenize_by_settings(folder: pathlib.Path) -> list[int]:
  (folder / 'chat_template.jinja').unlink(missing_ok=True)
  return _tokenize(folder)


def _rows(name: str) -> Callable[[pathlib.Path], list[Any]]:
  def read(folder: pathlib.Path) -> list[Any]:
    rows = record_files.read_rows(folder / name, None)
    return [dict(row.values) for row in rows]

  return read


_ROWS = [{'problem': f'{i} + 1', 'answer': [str(i + 1)]} for i in range(20)]


def _write_lines(name: str, rows: list[dict[str, Any]]) -> Callable:
  text = ''.join(f'{json.dumps(row)}\n' for row in rows)
  return lambda folder: (folder / name).write_text(text)


def _weights(folder: pathlib.Path) -> list[tuple[str, str, tuple[int, ...]]]:
  found = safetensors_io.open_folder(folder).values()
  return [(tensor.name, str(tensor.dtype), tensor.shape) for tensor in found]


def _adapter(folder: pathlib.Path) -> None:
  about = peft_io.to_published(_LORA, 'base')
  (folder / peft_io.CONFIG).write_text(json.dumps(about))


def _refuse(problems: list[str]) -> None:
  if problems:
    raise ValueError('\n'.join(problems))


def _read_adapter(folder: pathlib.Path) -> None:
  path = folder / peft_io.CONFIG
  _refuse([f'{path}: {p}' for p in peft_io._differences(folder, _LORA)])


def _checksums(folder: pathlib.Path) -> None:
  (folder / 'part').mkdir(exist_ok=True)
  (folder / 'part' / 'x').write_text('x')
  checksums.write(folder, ['part'])


def _sweep(folder: pathlib.Path) -> None:
  facts = {
    'format': plan.FORMAT,
    'config': {'trust_region': {'delta': 0.1}},
    'arguments': ['--config=tiny'],
    'variants': [Variant('a', {'delta': '0.1'}, {'delta': 0.1})._asdict()],
    'num_seeds': 2,
    'code': 'x',
  }
  (folder / plan.FILE).write_text(json.dumps(facts))


def _ledger(folder: pathlib.Path) -> None:
  record = ledger_records.hand_made()
  ledger_files.save(folder / 'step_000001.npz', record)


KINDS = (
  Kind('config.json', _copy(_MODEL), hf_config.read_shape),
  Kind('model.safetensors', _copy(_MODEL), _weights),
  Kind(
    'model.safetensors.index.json',
    _copy(_DATA / 'hf_models' / 'qwen3_gqa'),
    _weights,
  ),
  Kind(
    'expected.npz',
    _copy(_MODEL),
    lambda folder: hf_models._read_expected(folder / 'expected.npz'),
  ),
  Kind('adapter_config.json', _adapter, _read_adapter),
  Kind('tokenizer.json', _tokenizer_files, _tokenize),
  Kind('tokenizer_config.json', _tokenizer_files, _tokenize_by_settings),
  Kind('generation_config.json', _tokenizer_files, _tokenize),
  Kind('chat_template.jinja', _tokenizer_files, _tokenize),
  Kind('rows.jsonl', _write_lines('rows.jsonl', _ROWS), _rows('rows.jsonl')),
  Kind(
    'rows.json',
    lambda folder: (folder / 'rows.json').write_text(json.dumps(_ROWS)),
    _rows('rows.json'),
  ),
  Kind(
    'rows.parquet',
    lambda folder: parquet.write_table(
      pa.Table.from_pylist(_ROWS), folder / 'rows.parquet'
    ),
    _rows('rows.parquet'),
  ),
  Kind(
    workdir.CONFIG,
    lambda folder: (folder / workdir.CONFIG).write_text(
      json.dumps({'num_steps': 3, 'data': {'task': 'a', 'seeds': [1, 2]}})
    ),
    workdir.read_config,
  ),
  Kind(
    metrics_log.METRICS_FILE,
    _write_lines(
      metrics_log.METRICS_FILE, [{'step': i, 'loss': 0.5} for i in range(9)]
    ),
    lambda folder: metrics_log.read_rows(folder / metrics_log.METRICS_FILE),
  ),
  Kind(
    summary.SUMMARY_FILE,
    lambda folder: (folder / summary.SUMMARY_FILE).write_text(
      json.dumps({'steps': 3, 'accuracy': [0.5, {'low': 0.1}]})
    ),
    lambda folder: summary.read_summary(folder) or {},
  ),
  Kind(
    checksums.FILE_NAME,
    _checksums,
    lambda folder: checksums.check(folder, ['part']),
  ),
  Kind(plan.FILE, _sweep, plan.read),
  Kind(
    'step_000001.npz',
    _ledger,
    lambda folder: ledger_files.load(folder / 'step_000001.npz'),
  ),
  Kind(
    'small_11.npz',
    _copy(_DATA / 'golden'),
    lambda folder: golden.read_file(folder / 'small_11.npz'),
  ),
  Kind(
    'points.csv',
    lambda folder: table.write(
      folder / 'points.csv', [{'step': i, 'value': 0.5} for i in range(5)]
    ),
    lambda folder: table.read(folder / 'points.csv'),
  ),
)

_ODD = (None, True, -1, 2**70, 1e400, '', 'a', [], [None], {}, {'a': None})


def _by_bytes(whole: bytes) -> Iterator[tuple[str, bytes]]:
  size = len(whole)
  for part in (0, 1, size // 4, size // 2, size - 1):
    yield f'first {part} bytes', whole[:part]
  for place in sorted({size * i // 12 for i in range(12)} | set(range(8))):
    if place < size:
      flipped = bytes([whole[place] ^ 0xFF])
      yield f'byte {place}', whole[:place] + flipped + whole[place + 1 :]
  yield 'zeros behind', whole[: size // 2] + bytes(size - size // 2)
  yield 'zeros', bytes(size)
  yield 'twice', whole + whole
  yield 'nested', b'[' * 100_000
  yield 'nested and closed', b'[' * 500 + b']' * 500
  yield 'nested objects', b'{"a":' * 500 + b'1' + b'}' * 500
  yield 'long number', b'{"step": ' + b'9' * 5000 + b'}'
  for text in (b'null', b'[]', b'{}', b'1', b'"a"', b'NaN', b'\xff\xfe\n'):
    yield text.decode(errors='replace'), text


def _paths(value: Any, limit: int = 16) -> list[tuple[Any, ...]]:
  """Paths to values inside, the outer ones first."""
  found, level = [], [((), value)]
  while level:
    inner = []
    for path, each in level:
      if isinstance(each, dict):
        keys = list(each)[:limit]
      else:
        keys = list(range(min(2, len(each)))) if isinstance(each, list) else []
      inner += [((*path, key), each[key]) for key in keys]
    found += [path for path, _ in inner]
    level = inner
  return found[: 3 * limit]


def _by_values(value: Any) -> Iterator[tuple[str, Any]]:
  """Values with one of them replaced by one of another type, or left out."""
  for number, path in enumerate(_paths(value)):
    for odd in (*_ODD[number % 2 :: 2], ...):
      changed = copy.deepcopy(value)
      holder = changed
      for key in path[:-1]:
        holder = holder[key]
      if odd is ...:
        del holder[path[-1]]
      else:
        holder[path[-1]] = odd
      yield f'{".".join(map(str, path))}: {odd!r}', changed


def damages(name: str, whole: bytes) -> Iterator[tuple[str, bytes]]:
  """Names of damages, and the damaged contents of a file."""
  yield from _by_bytes(whole)
  if name.endswith('.json'):
    for what, value in _by_values(json.loads(whole)):
      yield what, json.dumps(value).encode()
  elif name.endswith('.jsonl'):
    first, _, rest = whole.partition(b'\n')
    for what, value in _by_values(json.loads(first)):
      yield what, json.dumps(value).encode() + b'\n' + rest
  elif name.endswith('.safetensors'):
    length = int.from_bytes(whole[:8], 'little')
    header = json.loads(whole[8 : 8 + length])
    for what, value in _by_values(header):
      text = json.dumps(value).encode()
      yield what, len(text).to_bytes(8, 'little') + text + whole[8 + length :]


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
  def stop(*_: object) -> None:
    raise TimeoutError

  before = signal.signal(signal.SIGALRM, stop)
  signal.alarm(LIMIT_S)
  try:
    yield
  finally:
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def judge(kind: Kind, folder: pathlib.Path) -> str:
  """What is wrong with how a damaged file is read; '' if nothing."""
  try:
    with _time_limit():
      kind.read(folder)
  except TimeoutError:
    return 'it hangs'
  except (ValueError, OSError) as error:
    if kind.name == checksums.FILE_NAME:
      return ''  # `Checkpoints` names it, and falls back to an earlier one.
    if isinstance(error, UnicodeError | json.JSONDecodeError):
      return f'{type(error).__name__}: {error}'
    text = str(error)
    if len(text.splitlines()) > MAX_LINES or len(text) > 4000:
      return f'{len(text)} characters: {text[:200]}'
    return '' if kind.name in text or str(folder) in text else text
  except BaseException as error:
    return f'{type(error).__name__}: {str(error)[:200]}'
  return ''


def run(base: pathlib.Path, every: int, first: int = 0) -> dict[str, list[str]]:
  """What was wrong, '' for each right case, by kind of file."""
  found = collections.defaultdict(list)
  number = first
  for place, kind in enumerate(KINDS):
    folder = base / str(place)
    folder.mkdir()
    kind.make(folder)
    whole = (folder / kind.name).read_bytes()
    kind.read(folder)  # Undamaged, it can be read.
    for what, content in damages(kind.name, whole):
      number += 1
      if number % every:
        continue
      kind.make(folder)
      (folder / kind.name).write_bytes(content)
      wrong = judge(kind, folder)
      found[kind.name].append(wrong and f'{what}: {wrong}')
  return found


def main() -> int:
  """Returns 1 where a case was wrong."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--every', type=int, default=1, help='each Nth case')
  every = parser.parse_args().every
  logging.disable(logging.WARNING)
  np.seterr(all='ignore')
  with tempfile.TemporaryDirectory() as base:
    found = run(pathlib.Path(base), every)
  for name, cases in found.items():
    for wrong in filter(None, cases):
      print(f'WRONG  {name}: {wrong}')
    print(f'{name}: {cases.count("")} right of {len(cases)}')
  total = [case for cases in found.values() for case in cases]
  print(f'damaged files: {total.count("")} right of {len(total)}')
  return int(any(total))


if __name__ == '__main__':
  raise SystemExit(main())
