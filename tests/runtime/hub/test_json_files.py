import json

import pytest

from dppo_jax.runtime.hub import json_files
from tests.support import gguf_model


@pytest.mark.parametrize('text', ['', '[1]', '{"a": ', '[' * 2**20])
def test_json_that_is_no_table(tmp_path, text):
  path = tmp_path / 'config.json'
  with pytest.raises(ValueError, match=r'config\.json: missing; name the fol'):
    json_files.read_json(path)
  path.write_text(text)
  with pytest.raises(ValueError, match=r'config\.json: .*download it again'):
    json_files.read_json(path)


def test_names_that_readers_differ_in(tmp_path):
  path = tmp_path / 'index.json'
  path.write_text('{"a": 1, "a": 2}')
  assert json_files.read_json(path) == {'a': 2}
  with pytest.raises(ValueError, match="it has 'a' twice; download it again"):
    json_files.read_json(path, unique=True)


def test_tables_of_a_gguf_file(tmp_path):
  path = tmp_path / 'm.gguf'
  with pytest.raises(ValueError, match=r'm\.gguf: missing; name a GGUF file'):
    json_files.read_json(path / 'config.json')
  gguf_model.write(path)
  table = json_files.read_json(path / 'config.json')
  json_files.write_json(tmp_path / 'config.json', table)
  assert json.loads((tmp_path / 'config.json').read_text()) == table
