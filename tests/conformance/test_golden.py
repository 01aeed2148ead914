"""Golden files are read whole, or refused by name of file and array."""

import pathlib

import numpy as np
import pytest

from dppo_jax.conformance import golden

_FILE = (
  pathlib.Path(__file__).parents[1] / 'testdata' / 'golden' / 'small_11.npz'
)


@pytest.fixture(scope='module')
def arrays():
  with np.load(_FILE, allow_pickle=False) as archive:
    return {name: archive[name] for name in archive.files}


def _refusal(folder, arrays):
  np.savez(folder / 'bad.npz', **arrays)
  with pytest.raises(golden.GoldenError) as caught:
    golden.read_folder(folder)
  return str(caught.value)


def test_a_file_is_inputs_and_results(arrays):
  found = golden.read_file(_FILE)
  assert found.name == 'small_11.npz'
  assert len(found.inputs) + len(found.results) == len(arrays)
  np.testing.assert_array_equal(found.inputs.tokens, arrays['tokens'])
  np.testing.assert_array_equal(
    found.results['trl/mask/topk_kl'], arrays['trl/mask/topk_kl']
  )


def test_files_come_by_name(tmp_path, arrays):
  for name in ('b', 'a'):
    np.savez(tmp_path / f'{name}.npz', **arrays)
  (tmp_path / 'notes.txt').write_text('no array')
  files = golden.read_folder(tmp_path)
  assert [found.name for found in files] == ['a.npz', 'b.npz']


@pytest.mark.parametrize('name', golden.Inputs._fields)
def test_every_input_is_needed(tmp_path, arrays, name):
  rest = {key: array for key, array in arrays.items() if key != name}
  text = _refusal(tmp_path, rest)
  assert text.startswith(f'bad.npz: missing {name}; got ')
  assert 'expected all of mu_logits' in text


@pytest.mark.parametrize(
  ('name', 'axes'),
  [
    ('pi_logits', '[B, T, V]'),
    ('advantages', '[B, T]'),
    ('topk_log_probs', '[B, T, K]'),
    ('trl/mask/binary_tv', '[B, T]'),
    ('unirl/cppo_mask/w1', '[B, T]'),
    ('verl/grad_pi_logits/gspo/anchor=old', '[B, T, V]'),
  ],
)
def test_shapes_must_agree(tmp_path, arrays, name, axes):
  cut = arrays[name][:, 1:]
  text = _refusal(tmp_path, arrays | {name: cut})
  assert f'bad.npz: {name}: got shape {cut.shape}, expected' in text
  assert str(arrays[name].shape) in text
  assert axes in text


def test_a_loss_is_one_number(tmp_path, arrays):
  text = _refusal(tmp_path, arrays | {'verl/loss/sapo/anchor=old': np.ones(2)})
  assert 'sapo/anchor=old: got shape (2,), expected ()' in text


@pytest.mark.parametrize('name', ['mu_logits', 'topk_ids'])
def test_three_axes_give_the_sizes(tmp_path, arrays, name):
  text = _refusal(tmp_path, arrays | {name: arrays[name][0]})
  assert f'bad.npz: {name}: got shape {arrays[name][0].shape}' in text


@pytest.mark.parametrize(
  ('name', 'change', 'said'),
  [
    ('tokens', lambda a: a + 100, 'expected 0 to 16'),
    ('tokens', lambda a: a.astype(float), 'got dtype float64'),
    ('topk_ids', lambda a: a - 100, 'expected 0 to 16'),
    ('mask', lambda a: a * 0.5, 'expected 0 and 1 only'),
    ('advantages', lambda a: a * np.nan, 'got NaN'),
    ('log_probs', lambda a: a.astype('U8'), 'expected numbers'),
  ],
)
def test_values_must_make_sense(tmp_path, arrays, name, change, said):
  text = _refusal(tmp_path, arrays | {name: change(arrays[name])})
  assert f'bad.npz: {name}: ' in text
  assert said in text


def test_all_problems_are_told_at_once(tmp_path, arrays):
  np.savez(tmp_path / 'a.npz', **{**arrays, 'mask': arrays['mask'] * 3})
  broken = {**arrays, 'advantages': np.ones(2), 'log_probs': np.ones(3)}
  text = _refusal(tmp_path, broken)
  for part in ('a.npz: mask', 'bad.npz: advantages', 'bad.npz: log_probs'):
    assert part in text


class _Bomb:
  def __reduce__(self):
    return (pathlib.Path.touch, (pathlib.Path('exploded'),))


def test_nothing_is_unpickled(tmp_path, arrays, monkeypatch):
  monkeypatch.chdir(tmp_path)
  bomb = np.array([_Bomb()], dtype=object)
  text = _refusal(tmp_path, arrays | {'stable_rl/mask/ppo': bomb})
  assert 'bad.npz: not an .npz file of plain numbers' in text
  assert not (tmp_path / 'exploded').exists()


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 cut short', b'hello'])
def test_other_files_are_refused(tmp_path, content):
  (tmp_path / 'bad.npz').write_bytes(content)
  with pytest.raises(golden.GoldenError, match=r'bad\.npz: not an \.npz file'):
    golden.read_folder(tmp_path)


def test_an_array_in_the_place_of_an_archive_is_refused(tmp_path):
  with open(tmp_path / 'bad.npz', 'wb') as file:
    np.save(file, np.ones(3))
  with pytest.raises(golden.GoldenError, match=r'bad\.npz: not an \.npz file'):
    golden.read_folder(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
  with pytest.raises(golden.GoldenError, match=r'--golden: no \.npz file in'):
    golden.read_folder(tmp_path)
  with pytest.raises(golden.GoldenError, match='--golden: no folder'):
    golden.read_folder(tmp_path / 'nowhere')


def test_a_damaged_archive_is_refused(tmp_path):
  content = bytearray(_FILE.read_bytes())
  content[200:400] = bytes(200)
  (tmp_path / 'bad.npz').write_bytes(content)
  with pytest.raises(golden.GoldenError, match=r'bad\.npz: not an \.npz file'):
    golden.read_folder(tmp_path)
