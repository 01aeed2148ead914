from dppo_jax.runtime.storage import files


def test_a_file_is_the_old_one_or_the_new_one(tmp_path):
  path = tmp_path / 'file'
  files.write_atomically(path, 'old')
  files.write_atomically(path, 'new')
  assert [p.read_text() for p in tmp_path.iterdir()] == ['new']
