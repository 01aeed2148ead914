import pytest

from dppo_jax.gguf_files import as_folder
from tests.support import gguf_model


def test_tables_stand_for_files(tmp_path):
  path = gguf_model.write(tmp_path / 'm.gguf')
  for name in as_folder.TABLES:
    assert as_folder.is_inside(path / name)
    assert as_folder.is_file(path / name)
    assert as_folder.read_table(path / name)
  assert not as_folder.is_inside(path / 'vocab.json')
  assert not as_folder.is_file(path / 'vocab.json')
  config = as_folder.read_table(path / 'config.json')
  assert config['eos_token_id'] == [3, 4]
  assert as_folder.read_table(path / 'generation_config.json') == {
    'bos_token_id': 1,
    'eos_token_id': [3, 4],
    'pad_token_id': 0,
  }


def test_a_missing_file_has_no_tables(tmp_path):
  inside = tmp_path / 'm.gguf' / 'config.json'
  assert as_folder.is_inside(inside)
  assert not as_folder.is_file(inside)
  with pytest.raises(ValueError, match='no such file'):
    as_folder.read_table(inside)


def test_a_folder_keeps_its_files(tmp_path):
  folder = tmp_path / 'm.gguf'
  folder.mkdir()
  (folder / 'config.json').write_text('{}')
  assert not as_folder.is_inside(folder / 'config.json')
  assert as_folder.is_file(folder / 'config.json')
