import os
import zipfile

import numpy as np
import pytest

from dppo_jax import bounded_npz


@pytest.fixture
def path(tmp_path):
  np.savez_compressed(tmp_path / 'x.npz', a=np.arange(1000), b=np.float32(2))
  return tmp_path / 'x.npz'


def test_arrays_come_back(path):
  found = bounded_npz.read(path)
  assert list(found) == ['a', 'b']
  np.testing.assert_array_equal(found['a'], np.arange(1000))
  assert found['b'].dtype == np.float32


def test_what_unpacks_to_too_much_is_not_unpacked(path):
  assert path.stat().st_size < 4000
  with pytest.raises(ValueError, match='bytes unpacked; at most 4,000'):
    bounded_npz.read(path, max_bytes=4000)


# The last two: a compression, and a version of arrays, that nobody knows.
_DAMAGES = {
  'empty': lambda whole: b'',
  'half': lambda whole: whole[: len(whole) // 2],
  'zeros': lambda whole: bytes(len(whole)),
  'encrypted': lambda whole: _in_directory(whole, 8, 1),
  'compression': lambda whole: _in_directory(whole, 10, 99),
}


def _in_directory(whole, offset, value):
  """Changes a byte of the first entry of the archive's directory."""
  place = whole.index(b'PK\x01\x02') + offset
  return whole[:place] + bytes([value]) + whole[place + 1 :]


@pytest.mark.parametrize('damage', _DAMAGES)
def test_damage_is_a_value_error_of_one_line(path, damage):
  whole = path.read_bytes()
  path.write_bytes(_DAMAGES[damage](whole))
  with pytest.raises(ValueError) as caught:  # noqa: PT011
    bounded_npz.read(path)
  assert type(caught.value) is ValueError
  assert str(caught.value)
  assert '\n' not in str(caught.value)


def test_no_byte_of_a_file_can_end_it_otherwise(path):
  """Each byte flipped: the same arrays, other numbers, or a ValueError."""
  whole = path.read_bytes()
  for place in range(0, len(whole), 7):
    flipped = bytes([whole[place] ^ 0xFF])
    path.write_bytes(whole[:place] + flipped + whole[place + 1 :])
    try:
      bounded_npz.read(path)
    except ValueError:
      continue


def test_pickles_and_other_members_are_refused(tmp_path):
  np.savez(tmp_path / 'pickled.npz', a=np.array([{}], object))
  with pytest.raises(ValueError, match='allow_pickle=False'):
    bounded_npz.read(tmp_path / 'pickled.npz')
  with zipfile.ZipFile(tmp_path / 'text.npz', 'w') as archive:
    archive.writestr('a', 'text')
  with pytest.raises(ValueError, match='a is no array'):
    bounded_npz.read(tmp_path / 'text.npz')


def test_what_is_no_file(tmp_path):
  with pytest.raises(FileNotFoundError):
    bounded_npz.read(tmp_path / 'x.npz')
  os.mkfifo(tmp_path / 'x.npz')
  with pytest.raises(ValueError, match='no regular file'):
    bounded_npz.read(tmp_path / 'x.npz')
