import pytest

from dppo_jax.configs import default
from dppo_jax.runtime.config import problems as problems_lib
from dppo_jax.runtime.config.checks import ranges
from tests.support import runs

# Switches, whose type ml_collections checks, and what other checks read.
_FREE = {
  'compilation_cache',
  'data.chat_template',
  'data.data_dir',
  'data.fields.answer',
  'data.fields.level',
  'data.fields.prompt',
  'data.fields.source',
  'data.files',
  'data.mixture',
  'data.prompt_template',
  'data.system_prompt',
  'data.tasks',
  'data.tokenizer',
  'environment.name',
  'evaluation.drop_trained_on',
  'evaluation.files',
  'evaluation.source',
  'evaluation.greedy',
  'learner.router_replay',
  'learner.share_prompt_prefix',
  'sampling.gather_fsdp',
  'lora.pretrained',
  'lora.targets',
  'model.pretrained',
  'model.mlp_only_layers',
  'model.norm_topk_prob',
  'model.qk_norm',
  'model.qkv_bias',
  'model.shard_sequence',
  'model.tied_head',
  'objective.entropy_coefficient',  # Of any sign.
  'rewards.extraction',
  'rewards.model',
  'rewards.read_thoughts',
  'rewards.shaping',
  'rewards.verifier',
  'sft.cache',
  'sampling.stop_strings',
  'data.chat_template_arguments',
  'data.fields.options',
  'data.fields.extra',
  *(
    f'evaluation.fields.{key}'
    for key in ('prompt', 'answer', 'options', 'level', 'source', 'extra')
  ),
  'writers.tensorboard',
  'writers.wandb',
  'writers.wandb_project',
  'mesh.data',
  'mesh.fsdp',
  'mesh.tensor',
  'mesh.expert',
}


def _paths(tree, prefix=''):
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from _paths(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}'


def test_every_key_is_checked_once():
  keys = [*ranges.CHOICES, *ranges.COUNTS, *ranges.RANGES, *_FREE]
  assert sorted(keys) == sorted(_paths(default.get_config().to_dict()))


def _problems(num_devices=1, **overrides):
  settings = runs.config(**overrides).to_dict()
  return problems_lib.find_problems(settings, num_devices)


@pytest.mark.parametrize('path', ranges.CHOICES)
def test_a_misspelled_name_gets_a_suggestion(path):
  # A name may be '', which nothing resembles.
  name = sorted(filter(None, ranges.CHOICES[path]))[0]
  wrong = f'{name}x'
  (problem,) = _problems(**{path: wrong})
  assert problem.startswith(f'{path}: unknown {wrong!r}; did you mean ')
  assert name in problem.partition('Known: ')[2]


@pytest.mark.parametrize('path', ranges.COUNTS)
def test_a_count_has_its_least(path):
  least = ranges.COUNTS[path]
  (problem,) = _problems(**{path: least - 1})
  assert problem == (
    f'{path}: got {least - 1}; a whole number of at least {least}.'
  )


@pytest.mark.parametrize('path', ranges.RANGES)
def test_a_number_stays_in_its_range(path):
  low, closed, high = ranges.RANGES[path]
  wrong = [float('nan'), low - 0.5, *([] if closed else [low])]
  if high != float('inf'):
    wrong.append(high + 0.5)
  for value in wrong:
    (problem,) = _problems(**{path: float(value)})
    assert problem.startswith(f'{path}: got {float(value)!r}; a number ')


def test_a_preset_is_no_rule():
  settings = runs.config(trust_region__rule='grpo').to_dict()
  (problem,) = ranges.choice_problems(settings)
  assert problem == (
    "trust_region.rule: 'grpo' is a preset, which sets a rule and more; name it"
    ' after the config: --config=CONFIG:grpo.'
  )
