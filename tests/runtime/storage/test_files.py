import errno
import os

import pytest

from dppo_jax.runtime.storage import files


@pytest.mark.parametrize('content', ['π ≤ μ\n', b'\xff\x00\r\n'])
def test_a_file_is_the_old_one_or_the_new_one(tmp_path, content):
  path = tmp_path / 'file'
  files.write_atomically(path, 'old')
  files.write_atomically(path, content)
  new = content.encode() if isinstance(content, str) else content
  assert [p.read_bytes() for p in tmp_path.iterdir()] == [new]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
  path = tmp_path / 'file'
  files.write_atomically(path, 'old')

  def write_half():
    with files.open_atomically(path) as file:
      file.write(b'half of the n')
      assert path.read_text() == 'old'
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    write_half()
  assert [p.read_text() for p in tmp_path.iterdir()] == ['old']


def test_bytes_reach_the_disk_before_the_name_does(tmp_path, monkeypatch):
  path = tmp_path / 'file'
  done = []
  monkeypatch.setattr(
    os, 'fsync', lambda number: done.append(os.fstat(number).st_size)
  )
  with files.open_atomically(path) as file:
    file.write(b'12345')
    assert not path.exists()
  assert done == [5]


@pytest.mark.parametrize(
  ('name', 'step'),
  [
    ('0', 0),
    ('120', 120),
    ('012', None),
    ('²', None),  # A digit, says str.isdigit, and int refuses it.
    ('٣', None),  # A decimal that int reads as 3.
    ('-1', None),
    ('7.orbax-checkpoint-tmp', None),
    ('9' * 5000, None),  # More digits than int takes.
    ('', None),
  ],
)
def test_steps_have_one_name(name, step):
  assert files.step_number(name) == step


def test_the_first_line_of_an_error_keeps_both_ends():
  assert files.first_line(OSError('a\nb')) == 'OSError: a'
  assert files.first_line(KeyError()) == 'KeyError: '
  line = files.first_line(ValueError(f'begin {"x" * 500} No space left'))
  assert line.startswith('ValueError: begin x')
  assert line.endswith('No space left')
  assert len(line) < 260


@pytest.mark.parametrize(
  ('number', 'mend'),
  [
    (errno.ENOSPC, 'Make room there'),
    (errno.EDQUOT, 'Make room within your quota'),
    (errno.EFBIG, "Raise the limit on a file's size (see 'ulimit -f')"),
  ],
)
def test_an_error_for_lack_of_room_says_where_and_what_to_do(
  tmp_path, number, mend
):
  path = tmp_path / 'rows.jsonl'
  error = OSError(number, os.strerror(number))
  assert files.remedy(error, tmp_path).startswith(mend)
  # As a native library words it.
  native = ValueError(f'step 3: {os.strerror(number)} [source]')
  assert files.remedy(native, tmp_path).startswith(mend)
  with pytest.raises(OSError, match=r'MiB free') as caught, files.naming(path):
    raise error
  assert caught.value.errno == number
  assert mend in str(caught.value)
  assert str(path) in str(caught.value)


def test_another_error_stays_as_it_is(tmp_path):
  error = PermissionError(errno.EACCES, 'denied')
  assert not files.remedy(error, tmp_path)
  with pytest.raises(PermissionError) as caught, files.naming(tmp_path / 'x'):
    raise error
  assert caught.value is error


def test_a_full_disk_is_named_by_what_is_written_to_it(tmp_path):
  full = tmp_path / 'full'
  full.symlink_to('/dev/full')
  with pytest.raises(OSError, match=r'full: .*Make room') as caught:
    _write(full)
  assert caught.value.errno == errno.ENOSPC


def _write(path):
  with files.naming(path), path.open('w') as file:
    file.write('x')
