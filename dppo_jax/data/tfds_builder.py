"""TFDS builder of the tasks: ArrayRecord files with random access.

Preparation needs no network and never imports TensorFlow. A data set is written
under a temporary name and renamed when complete, so several processes may
prepare it at once, and a killed one leaves no partial data set.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import functools
import io
import logging
import os
import pathlib
import shutil
import tempfile
from typing import Any
import urllib.request

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2
from tensorflow_datasets.text.gsm8k import gsm8k  # Not registered by itself.

from dppo_jax import base, suggestions
from dppo_jax.data import tasks

_proto: Any = tf_example_pb2  # Its classes are made as it is imported.


class VerifiableTasks(tfds.core.GeneratorBasedBuilder):
  """Prompts with answers that a program can verify; one config per task."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First release.'}  # noqa: RUF012
  BUILDER_CONFIGS = [  # noqa: RUF012
    tfds.core.BuilderConfig(name=name) for name in tasks.TASKS
  ]

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
      description='Small tasks whose answers a program can verify.',
      features=tfds.features.FeaturesDict(
        {
          'example_id': tfds.features.Scalar(np.int32),
          'prompt': tfds.features.Text(),
          'answer': tfds.features.Text(),
        }
      ),
      disable_shuffling=True,  # The prompt stream shuffles in every epoch.
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Nothing is downloaded.
    sizes = tasks.SPLIT_SIZES
    name = str(self.builder_config_name)
    # Slices of one sequence without repetitions: the splits are disjoint.
    rows = tasks.generate_unique(name, sum(sizes.values()))
    starts, start = {}, 0
    for split, size in sizes.items():
      starts[split], start = start, start + size
    return {
      split: self._generate_examples(rows, starts[split], size)
      for split, size in sizes.items()
    }

  def _generate_examples(
    self, rows: Sequence[dict[str, str]], start: int, size: int
  ) -> Iterator[tuple[int, dict[str, object]]]:
    for example_id in range(start, start + size):
      yield example_id, {'example_id': example_id, **rows[example_id]}


@contextlib.contextmanager
def _silence() -> Iterator[None]:
  """Suppresses the builder's progress bars and messages."""
  tfds.disable_progress_bar()
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logger.setLevel(level)


def _prepare(task: str, data_dir: pathlib.Path) -> pathlib.Path:
  """Folder of a prepared task; prepares it if necessary."""
  return _prepare_once(
    lambda home: VerifiableTasks(config=task, data_dir=home),
    pathlib.Path(VerifiableTasks.name, task, str(VerifiableTasks.VERSION)),
    data_dir,
  )


def _prepare_once(
  make_builder: Callable[[str], Any],
  relative: pathlib.Path,
  data_dir: pathlib.Path,
) -> pathlib.Path:
  """Folder of a prepared data set; prepares it if necessary.

  Args:
    make_builder: folder -> builder that prepares the data set there.
    relative: path of the data set below that folder.
    data_dir: root folder of data sets.
  """
  final = data_dir / relative
  if final.exists():
    return final
  data_dir.mkdir(parents=True, exist_ok=True)
  scratch = tempfile.mkdtemp(prefix='.preparing-', dir=data_dir)
  try:
    make_builder(scratch).download_and_prepare(
      download_config=tfds.download.DownloadConfig(try_download_gcs=False),
      file_format='array_record',
    )
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
      os.rename(pathlib.Path(scratch) / relative, final)
    except OSError:
      # Another process finished first; the data sets are identical.
      if not final.exists():
        raise
  finally:
    shutil.rmtree(scratch, ignore_errors=True)
  return final


def _read(folder: pathlib.Path, split: str) -> Sequence[dict[str, Any]]:
  """Rows of a prepared split, or of a slice of one."""
  builder: Any = tfds.builder_from_directory(folder)
  if not builder.info.splits[split].num_examples:
    return []  # The reader does not support empty sources.
  records = builder.as_data_source(split).data_source
  return [_fields(each) for each in records.__getitems__(range(len(records)))]


def _fields(record: bytes) -> dict[str, Any]:
  """Values of a record of scalars: bytes, ints.

  TFDS holds every record against the features of its data set, and turns values
  into arrays: six times as long, .3 s for 16,384 examples.
  """
  named = _proto.Example.FromString(record).features.feature
  return {
    name: getattr(feature, feature.WhichOneof('kind')).value[0]
    for name, feature in named.items()
  }


@functools.lru_cache(maxsize=4)
def _examples(
  folder: pathlib.Path, split: str, files: tuple[tuple[Any, ...], ...]
) -> tuple[base.Example, ...]:
  """Examples of a prepared split of a task, or of a slice of one.

  Kept, since a run reads a split for its prompts and for demonstrations, and
  TFDS takes half a second for 16,384 examples.

  Args:
    folder: of the data set.
    split: its name, maybe with a slice.
    files: of `_files`; whoever changes a file has it read again.
  """
  del files
  return tuple(
    {
      'example_id': int(row['example_id']),
      'prompt': row['prompt'].decode(),
      'answer': row['answer'].decode(),
    }
    for row in _read(folder, split)
  )


def _files(folder: pathlib.Path) -> tuple[tuple[Any, ...], ...]:
  """Names, sizes and times of change of the files of a data set."""
  return tuple(
    (entry.name, entry.stat().st_size, entry.stat().st_mtime_ns)
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)
  )


def load_split(
  task: str, split: str, data_dir: str | os.PathLike[str]
) -> tuple[base.Example, ...]:
  """Examples of one split of a task; prepares the task if necessary.

  Args:
    task: a key of `tasks.TASKS`.
    split: 'train', 'validation' or 'test', or a slice such as 'train[:100]'.
    data_dir: root folder of data sets; `~` is the home folder.

  Returns:
    The examples in a fixed order: dicts of 'example_id' (int, unique over all
    splits of the task), 'prompt' and 'answer' (str).

  Raises:
    ValueError: the task or split is unknown, the split is empty, or `data_dir`
      cannot be written or read.
  """
  tasks.find_task(task)
  name = split.partition('[')[0]
  if name not in tasks.SPLIT_SIZES:
    known = list(tasks.SPLIT_SIZES)
    raise ValueError(
      f'data.task: {task!r} has no split'
      f' {split!r}{suggestions.suggest(name, known)}'
    )
  folder = pathlib.Path(data_dir).expanduser()
  try:
    with _silence():
      prepared = _prepare(task, folder)
  except (OSError, RuntimeError) as error:
    raise ValueError(
      f'data.data_dir: cannot prepare {task!r} under {str(folder)!r} '
      f'({error}); name a folder that can be written.'
    ) from error
  try:
    with _silence():
      examples = _examples(prepared, split, _files(prepared))
  except Exception as error:  # On a damaged file the reader may raise anything.
    raise ValueError(
      f'data.data_dir: cannot read split {split!r} of {task!r} in '
      f'{str(prepared)!r} ({type(error).__name__}: {error}); if the '
      'split is well-formed, delete that folder and it is prepared again.'
    ) from error
  if not examples:
    raise ValueError(
      f'data.task: split {split!r} of {task!r} is empty; select at least '
      f'one of its {tasks.SPLIT_SIZES[name]} examples.'
    )
  return examples


# One of the files that TFDS's builder downloads.
_GSM8K_URL = (
  'https://raw.githubusercontent.com/openai/grade-school-math/master/'
  'grade_school_math/data/test.jsonl'
)


def _probe(url: str) -> None:
  """Fails fast without a network; TFDS would retry for minutes."""
  request = urllib.request.Request(url, method='HEAD')
  urllib.request.urlopen(request, timeout=20).close()


def load_gsm8k(
  split: str, data_dir: pathlib.Path
) -> Iterator[Mapping[str, str]]:
  """Rows of GSM8K from TFDS's own builder, which downloads them once.

  Args:
    split: 'train' or 'test'.
    data_dir: root folder of data sets.

  Returns:
    Mappings of 'question' and 'answer'.

  Raises:
    ValueError: GSM8K is not prepared and cannot be downloaded.
  """
  cls = gsm8k.Gsm8k
  relative = pathlib.Path(cls.name, str(cls.VERSION))
  try:
    if not (data_dir / relative).exists():
      _probe(_GSM8K_URL)
    with _silence():
      prepared = _prepare_once(
        lambda home: cls(data_dir=home), relative, data_dir
      )
      rows = _read(prepared, split)
  # Without a network, or on a damaged file, TFDS may raise anything.
  except Exception as error:
    raise ValueError(
      f'data.source: cannot download or read gsm8k ({type(error).__name__}:'
      f' {str(error)[:200]}). It is published at github.com/openai/'
      'grade-school-math, grade_school_math/data/train.jsonl and test.jsonl:'
      f' put them into {data_dir / "files" / "gsm8k"}, or name one in'
      ' data.files.'
    ) from error
  return (
    {key: row[key].decode() for key in ('question', 'answer')} for row in rows
  )
