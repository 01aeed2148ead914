import json

import pytest

from dppo_jax.runtime.hub import published_keys
from dppo_jax.runtime.hub.published_keys import (
  ADAPTER,
  GENERATION,
  MODEL,
  ROPE,
  TOKENIZER,
)
from tests.support import published

_TABLES = {
  'model': MODEL[False],
  'experts': MODEL[True],
  'rope': ROPE,
  'adapter': ADAPTER,
  'generation': GENERATION,
  'tokenizer': TOKENIZER,
}


@pytest.mark.parametrize('name', _TABLES)
def test_every_key_is_listed_once(name):
  table = _TABLES[name]
  keys = [*table.read, *table.only, *table.ignored]
  assert sorted(keys) == sorted(set(keys))


@pytest.mark.parametrize('name', published.ALL)
def test_keys_of_published_models_are_known(name):
  raw = json.loads((published.MODELS / name / 'config.json').read_text())
  table = MODEL[name == 'qwen3_moe']
  assert list(table.problems(raw)) == []
  assert table.unknown(raw) == {}
  assert ROPE.unknown(raw['rope_parameters']) == {}
  path = published.MODELS / name / 'generation_config.json'
  assert GENERATION.unknown(json.loads(path.read_text())) == {}


def test_unknown_keys_with_a_value_are_reported():
  raw = {'hidden_size': 8, 'logits_scaling': 8.0, 'new': None, 'other': False}
  assert MODEL[False].unknown(raw) == {'logits_scaling': 8.0}
  # A model without experts that has some.
  assert MODEL[False].unknown({'num_experts': 8}) == {'num_experts': 8}
  assert MODEL[True].unknown({'num_experts': 8}) == {}
  assert TOKENIZER.unknown({'image_token': 'x', 'do_lower_case': True}) == {
    'do_lower_case': True
  }


def test_numbers_are_no_truth_values():
  assert list(MODEL[False].problems({'mlp_bias': False})) == []
  assert list(MODEL[False].problems({'mlp_bias': 0})) == [
    'mlp_bias: unsupported 0; False or None can be read.'
  ]
  assert list(ADAPTER.problems({'init_lora_weights': 1})) == [
    "init_lora_weights: unsupported 1; True or False or None or 'gaussian' or"
    " 'eva' or 'orthogonal' or 'mica' can be read."
  ]


def test_settings_of_a_tokenizer_that_are_not_followed(tmp_path):
  published_keys.check_tokenizer('')
  published_keys.check_tokenizer(str(tmp_path))
  path = tmp_path / published_keys.TOKENIZER_SETTINGS
  path.write_text('{"split_special_tokens": false, "model_max_length": 9}')
  published_keys.check_tokenizer(str(tmp_path))
  path.write_text('{"split_special_tokens": true}')
  with pytest.raises(
    ValueError, match=r'data\.tokenizer: .*split_special_tokens: unsupported T'
  ):
    published_keys.check_tokenizer(str(tmp_path))
