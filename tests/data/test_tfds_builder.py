"""Preparing and reading: disjoint, deterministic, quiet, no TensorFlow."""

import json
import pathlib

import pytest

from dppo_jax.data import tasks, tfds_builder
from tests.support import runs


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data')
  tfds_builder.load_split('sort', 'test', folder)
  return folder


@pytest.fixture
def small(monkeypatch):
  sizes = {'train': 40, 'validation': 20, 'test': 10}
  monkeypatch.setattr(tasks, 'SPLIT_SIZES', sizes)


def test_splits_are_complete_and_disjoint(data_dir):
  splits = {
    split: tfds_builder.load_split('sort', split, data_dir)
    for split in tasks.SPLIT_SIZES
  }
  prompts, ids = set(), set()
  for split, examples in splits.items():
    assert len(examples) == tasks.SPLIT_SIZES[split]
    prompts |= {example['prompt'] for example in examples}
    ids |= {example['example_id'] for example in examples}
  assert len(prompts) == len(ids) == sum(tasks.SPLIT_SIZES.values())


def test_examples_are_those_of_the_task_in_order(data_dir):
  expected = tasks.generate_unique('sort', tasks.SPLIT_SIZES['train'])
  examples = tfds_builder.load_split('sort', 'train', data_dir)
  for i in (0, 1, 9000, len(examples) - 1):
    assert examples[i] == {'example_id': i, **expected[i]}


@pytest.mark.parametrize('task', tasks.TASKS)
@pytest.mark.usefixtures('small')
def test_every_task_is_prepared(task, tmp_path):
  examples = tfds_builder.load_split(task, 'validation', tmp_path)
  assert len(examples) == 20
  assert set(examples[0]) == {'example_id', 'prompt', 'answer'}
  assert not list(tmp_path.glob('.preparing*'))


def test_a_slice_of_a_split(data_dir):
  whole = tfds_builder.load_split('sort', 'test', data_dir)
  assert tfds_builder.load_split('sort', 'test[3:5]', data_dir) == whole[3:5]


def test_prepared_data_is_not_prepared_again(data_dir):
  files = [p for p in data_dir.rglob('*') if p.is_file()]
  before = {p: p.stat().st_mtime_ns for p in files}
  tfds_builder.load_split('sort', 'test', data_dir)
  assert {p: p.stat().st_mtime_ns for p in before} == before
  assert len(before) == 5


def test_nothing_is_printed(tmp_path, capfd):
  tfds_builder.load_split('addition', 'test', tmp_path)
  assert capfd.readouterr() == ('', '')


def test_unknown_names_are_suggested(data_dir):
  with pytest.raises(ValueError, match=r"data\.task: unknown 'srot'.*'sort'"):
    tfds_builder.load_split('srot', 'train', data_dir)
  with pytest.raises(ValueError, match=r"data\.task: .*'valid'.*'validation'"):
    tfds_builder.load_split('sort', 'valid', data_dir)


def test_an_empty_split_is_refused(data_dir):
  with pytest.raises(
    ValueError, match=r"data\.task: split 'train\[:0\]'.*empty"
  ):
    tfds_builder.load_split('sort', 'train[:0]', data_dir)


def test_a_malformed_slice_is_refused(data_dir):
  with pytest.raises(ValueError, match=r'data\.data_dir: cannot read'):
    tfds_builder.load_split('sort', 'train[', data_dir)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match=r'data\.data_dir: cannot prepare'):
    tfds_builder.load_split('sort', 'train', tmp_path / 'file')


@pytest.mark.parametrize('name', ['dataset_info.json', 'features.json'])
@pytest.mark.usefixtures('small')
def test_damaged_data_is_named(tmp_path, name):
  tfds_builder.load_split('sort', 'test', tmp_path)
  (damaged,) = tmp_path.rglob(name)
  damaged.write_text('{')
  with pytest.raises(
    ValueError, match=r'data\.data_dir: .* delete that folder'
  ):
    tfds_builder.load_split('sort', 'test', tmp_path)


@pytest.mark.usefixtures('small')
def test_a_split_is_read_once_until_it_changes(tmp_path, monkeypatch):
  first = tfds_builder.load_split('sort', 'test', tmp_path)
  directory = tfds_builder.tfds.builder_from_directory
  reads = []
  monkeypatch.setattr(
    tfds_builder.tfds,
    'builder_from_directory',
    lambda folder: reads.append(folder) or directory(folder),
  )
  assert tfds_builder.load_split('sort', 'test', tmp_path) is first
  assert reads == []
  (info,) = tmp_path.rglob('dataset_info.json')
  info.write_text(info.read_text() + '\n')
  assert tfds_builder.load_split('sort', 'test', tmp_path) == first
  assert len(reads) == 1


_LOAD = """
import sys
from dppo_jax.data import tfds_builder
rows = tfds_builder.load_split('sort', 'validation', sys.argv[1])
print(len(rows), rows[0]['prompt'])
print([m for m in sys.modules if m.split('.')[0] == 'tensorflow'])
"""


def test_processes_race_without_harm_or_tensorflow(tmp_path):
  racers = [runs.start_code(_LOAD, tmp_path, fresh=True) for _ in range(2)]
  ended = [runs.end(racer) for racer in racers]
  assert ended[0] == ended[1] == (0, '1024 6 1 3 4 3 0 1 8 =\n[]\n', '')
  assert not list(tmp_path.glob('.preparing*'))


@pytest.mark.usefixtures('small')
def test_the_loser_of_a_race_reads_what_the_winner_wrote(tmp_path, monkeypatch):
  winner = tfds_builder.load_split('sort', 'test', tmp_path)
  exists = pathlib.Path.exists
  answers = iter([False])  # The winner was not there when the loser looked.

  def late_exists(path):
    return next(answers, True) if path.name == '1.0.0' else exists(path)

  monkeypatch.setattr(pathlib.Path, 'exists', late_exists)
  prepared = tfds_builder._prepare('sort', tmp_path)
  monkeypatch.undo()
  assert next(answers, None) is None
  assert prepared == tmp_path / 'verifiable_tasks' / 'sort' / '1.0.0'
  assert tfds_builder.load_split('sort', 'test', tmp_path) == winner
  assert not list(tmp_path.glob('.preparing*'))


@pytest.fixture
def published(tmp_path, monkeypatch):
  """GSM8K's files, as if they had been downloaded; counts the downloads."""
  row = {'question': 'What is 1 + 1?', 'answer': '<<1+1=2>>2\n#### 2'}
  file = tmp_path / 'train.jsonl'
  file.write_text(f'{json.dumps(row)}\n' * 3)
  downloads = []

  def download(self, urls):
    downloads.append(self)
    return {split: file for split in urls if split in ('train', 'test')}

  monkeypatch.setattr(
    tfds_builder.tfds.download.DownloadManager, 'download_and_extract', download
  )
  monkeypatch.setattr(tfds_builder, '_probe', lambda url: None)
  return downloads


def test_gsm8k_is_downloaded_once(tmp_path, published, monkeypatch):
  rows = list(tfds_builder.load_gsm8k('train', tmp_path))
  assert (
    rows == [{'question': 'What is 1 + 1?', 'answer': '<<1+1=2>>2\n#### 2'}] * 3
  )

  def unreachable(url):
    raise AssertionError(url)

  monkeypatch.setattr(tfds_builder, '_probe', unreachable)
  assert len(list(tfds_builder.load_gsm8k('test', tmp_path))) == 3
  assert len(published) == 1


def test_gsm8k_without_a_network_says_where_to_put_it(tmp_path, monkeypatch):
  def unreachable(url):
    raise OSError('no network')

  monkeypatch.setattr(tfds_builder, '_probe', unreachable)
  with pytest.raises(ValueError, match='grade-school-math') as caught:
    tfds_builder.load_gsm8k('train', tmp_path)
  assert str(tmp_path / 'files' / 'gsm8k') in str(caught.value)
  assert not any(tmp_path.iterdir())
