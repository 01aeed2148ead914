import dataclasses
import io
import zipfile

import numpy as np
import pytest

from dppo_jax.configs import default
from dppo_jax.runtime.config import problems as problems_lib
from dppo_jax.runtime.ledger import files
from dppo_jax.runtime.ledger import record as record_lib
from tests.support import ledger_records as records


def _equal(one, other):
  for field in dataclasses.fields(record_lib.Record):
    a, b = getattr(one, field.name), getattr(other, field.name)
    if isinstance(a, np.ndarray):
      assert a.dtype == b.dtype, field.name
      np.testing.assert_array_equal(a, b)
    else:
      assert a == b, field.name


@pytest.mark.parametrize('anchor', ['rollout', 'recomputed'])
def test_a_record_round_trips(tmp_path, anchor):
  record = records.trained(anchor=anchor, budget=float('inf'))
  path = files.LedgerWriter(tmp_path, 1, None).write(record)
  assert path == tmp_path / 'ledger' / 'step_000007.npz'
  assert [p.name for p in path.parent.iterdir()] == [path.name]
  _equal(files.load(path), record)
  # Whoever reads it with NumPy alone needs no pickle.
  with np.load(path, allow_pickle=False) as archive:
    assert archive['keep'].dtype == np.float32


def test_any_text_survives(tmp_path):
  texts = ['</script>\x00\n\u202e\ud800', 'é漢']
  record = records.hand_made(
    completions=texts, pieces={**records.hand_made().pieces, 2: '<b>'}
  )
  files.save(tmp_path / 'a.npz', record)
  _equal(files.load(tmp_path / 'a.npz'), record)


def test_a_resumed_run_drops_the_steps_it_repeats(tmp_path):
  writer = files.LedgerWriter(tmp_path, 2, None)
  for step in (2, 4, 6):
    record = records.hand_made(step=np.full(2, step, np.int32))
    writer.write(record)
  other = tmp_path / 'ledger' / 'ledger.html'
  other.write_text('mine')
  (tmp_path / 'ledger' / '.step_000006.npz.tmp').write_text('half')
  files.LedgerWriter(tmp_path, 0, 4)
  assert files.find_steps(tmp_path) == [2, 4]
  assert not list((tmp_path / 'ledger').glob('.*'))
  files.LedgerWriter(tmp_path, 2, None)
  assert files.find_steps(tmp_path) == []
  assert other.exists()


def test_steps_are_recorded_when_due(tmp_path):
  writer = files.LedgerWriter(tmp_path, 3, None)
  assert [s for s in range(1, 8) if writer.due(s)] == [3, 6]
  never = files.LedgerWriter(tmp_path, 0, None)
  assert not any(never.due(s) for s in range(8))
  assert not (tmp_path / 'ledger').exists()


def test_a_failed_write_leaves_the_file_before(tmp_path, monkeypatch):
  path = tmp_path / 'a.npz'
  files.save(path, records.hand_made())
  before = path.read_bytes()

  def fail(*args, **kwargs):
    args[0].write(b'half')
    raise OSError('no space')

  monkeypatch.setattr(np, 'savez_compressed', fail)
  with pytest.raises(OSError, match='no space'):
    files.save(path, records.trained())
  assert path.read_bytes() == before


@pytest.fixture
def run(tmp_path):
  writer = files.LedgerWriter(tmp_path, 5, None)
  for step in (5, 10, 15):
    writer.write(records.hand_made(step=np.full(2, step, np.int32)))
  return tmp_path


def test_steps_are_chosen(run):
  assert set(files.load_steps(run, 'all').step) == {5, 10, 15}
  assert files.load_steps(run, '15, 5').step.tolist() == [5, 5, 15, 15]


@pytest.mark.parametrize('wanted', ['7', '5,7', 'last', '', '-5', '5,'])
def test_unknown_steps_are_refused(run, wanted):
  with pytest.raises(ValueError, match=r'--step: .*recorded are 5, 10, 15'):
    files.load_steps(run, wanted)


def test_a_run_without_records_says_how_to_switch_them_on(tmp_path):
  with pytest.raises(ValueError, match=r'--config\.ledger\.every_n_steps=10'):
    files.load_steps(tmp_path, 'all')
  with pytest.raises(ValueError, match='no folder'):
    files.load_steps(tmp_path / 'absent', 'all')


def _rewrite(path, change):
  with np.load(path) as archive:
    columns = {name: archive[name] for name in archive.files}
  change(columns)
  np.savez_compressed(path, **columns)


_DAMAGES = {
  'no keep': lambda c: c.pop('keep'),
  'no facts': lambda c: c.pop('facts'),
  'other column': lambda c: c.update(more=c['keep']),
  'short': lambda c: c.update(keep=c['keep'][:-1]),
  'f64': lambda c: c.update(keep=c['keep'].astype(np.float64)),
  'flat pairs': lambda c: c.update(top_ids=c['token']),
  'row': lambda c: c.update(row=c['row'] + 2),
  'position': lambda c: c.update(position=c['position'] - 1),
  'token': lambda c: c.update(token=c['token'] + 1),
  'descending': lambda c: c.update(row=c['row'][::-1].copy()),
  'not json': lambda c: c.update(facts=c['facts'][:-1]),
  'not facts': lambda c: c.update(facts=np.frombuffer(b'[]', np.uint8)),
  'format': lambda c: c.update(
    facts=np.frombuffer(
      c['facts'].tobytes().replace(b'"format": 1', b'"format": 2'), np.uint8
    )
  ),
  'texts': lambda c: c.update(
    facts=np.frombuffer(
      c['facts'].tobytes().replace(b'["wrong", "right"]', b'["wrong"]'),
      np.uint8,
    )
  ),
}


@pytest.mark.parametrize('damage', _DAMAGES)
def test_a_damaged_file_is_refused_by_name(run, damage):
  path = run / 'ledger' / 'step_000010.npz'
  _rewrite(path, _DAMAGES[damage])
  with pytest.raises(ValueError, match=r'step_000010\.npz is damaged.*delete'):
    files.load_steps(run, 'all')
  assert files.load_steps(run, '5').step.tolist() == [5, 5]


def test_a_column_that_need_not_be_there_is_missed_all_the_same(tmp_path):
  record = records.hand_made()
  entropy = np.ones(len(record.row), np.float32)
  record = dataclasses.replace(record, rollout_entropy=entropy)
  path = tmp_path / 'step_000001.npz'
  files.save(path, record)
  assert files.load(path).rollout_entropy is not None
  _rewrite(path, lambda columns: columns.pop('rollout_entropy'))
  with pytest.raises(
    ValueError, match=r"stored columns differ: \['rollout_ent"
  ):
    files.load(path)


def test_no_bit_of_a_file_can_change_unseen(run):
  path = run / 'ledger' / 'step_000010.npz'
  whole = path.read_bytes()
  with zipfile.ZipFile(io.BytesIO(whole)) as archive:
    member = archive.getinfo('keep.npy')
  inside = member.header_offset + 90
  for bad in (
    b'',
    b'text',
    whole[: len(whole) // 2],
    whole[:inside] + bytes([whole[inside] ^ 16]) + whole[inside + 1 :],
  ):
    path.write_bytes(bad)
    with pytest.raises(ValueError, match='damaged'):
      files.load(path)


def test_size_of_a_token_is_as_documented(tmp_path):
  """With numbers of which no two are alike, the worst there is."""
  rng = np.random.default_rng(0)
  rows, length, top_k = 64, 64, 20
  tokens = rows * length

  def floats(*shape):
    return np.log(rng.uniform(size=shape)).astype(np.float32)

  record = records.hand_made(
    num_columns=length,
    pieces={i: 'word' for i in range(1000)},
    prompts=['a b c'] * rows,
    completions=['a b c'] * rows,
    reasons=['right'] * rows,
    **{name: np.zeros(rows, d) for name, d in record_lib.ROWS.items()},
    row=np.repeat(np.arange(rows), length).astype(np.int32),
    position=np.tile(np.arange(length), rows).astype(np.int32),
    token=rng.integers(0, 1000, tokens).astype(np.int32),
    advantages=np.repeat(rng.normal(size=rows), length).astype(np.float32),
    rollout_log_probs=floats(tokens),
    log_probs=floats(tokens),
    divergence=np.exp(floats(tokens)),
    keep=(rng.uniform(size=tokens) > 0.02).astype(np.float32),
    rollout_entropy=-floats(tokens),
    top_ids=rng.integers(0, 1000, (tokens, top_k)).astype(np.int32),
    rollout_top_log_probs=floats(tokens, top_k),
    top_log_probs=floats(tokens, top_k),
  )
  path = tmp_path / 'a.npz'
  files.save(path, record)
  size = path.stat().st_size / tokens
  print(f'{size:.1f} bytes a token with K = {top_k}')
  assert size < 20 + 10.5 * top_k
  bare = dataclasses.replace(
    record, top_ids=None, rollout_top_log_probs=None, top_log_probs=None
  )
  files.save(path, bare)
  size = path.stat().st_size / tokens
  print(f'{size:.1f} bytes a token with K = 0')
  assert size < 22


def test_the_interval_is_a_count():
  config = default.get_config()
  config.ledger.every_n_steps = -1
  problems = problems_lib.find_problems(config.to_dict(), 1)
  assert any(p.startswith('ledger.every_n_steps: got -1') for p in problems)
