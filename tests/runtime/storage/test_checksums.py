import pytest

from dppo_jax.runtime.storage import checksums


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'a' / 'deep').mkdir(parents=True)
  (tmp_path / 'a' / 'deep' / 'one').write_bytes(b'one')
  (tmp_path / 'a' / 'empty').touch()
  (tmp_path / 'outside').write_bytes(b'not listed')
  checksums.write(tmp_path, ['a'])
  return tmp_path


def test_an_untouched_folder_passes(folder):
  checksums.check(folder, ['a'])


def test_unlisted_files_may_change(folder):
  (folder / 'outside').write_bytes(b'changed')
  checksums.check(folder, ['a'])


def test_a_changed_file_is_named(folder):
  (folder / 'a' / 'deep' / 'one').write_bytes(b'onf')
  with pytest.raises(ValueError, match='a/deep/one has changed'):
    checksums.check(folder, ['a'])


def test_a_missing_file_is_named(folder):
  (folder / 'a' / 'empty').unlink()
  with pytest.raises(ValueError, match='a/empty is missing'):
    checksums.check(folder, ['a'])


def test_a_missing_list_is_an_error(folder):
  (folder / checksums.FILE_NAME).unlink()
  with pytest.raises(FileNotFoundError):
    checksums.check(folder, ['a'])


def test_a_garbled_list_is_an_error(folder):
  (folder / checksums.FILE_NAME).write_text('{"a')
  with pytest.raises(ValueError, match='Unterminated'):
    checksums.check(folder, ['a'])


def test_a_full_disk_is_named(tmp_path):
  (tmp_path / checksums.FILE_NAME).symlink_to('/dev/full')
  with pytest.raises(OSError, match=r'checksums\.json: .*Make room'):
    checksums.write(tmp_path, [])
