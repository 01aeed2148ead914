import pytest

from dppo_jax.commands import keys

_KEYS = keys.known()
_FILE = 'configs/default.py'


def test_every_key_is_known():
  assert _KEYS['trust_region.delta_low'] == 0.2
  assert _KEYS['data.fields.prompt'] == 'prompt'
  assert _KEYS['num_steps'] == 200


@pytest.mark.parametrize('name', sorted(keys.ALIASES))
def test_an_alias_leads_to_keys(name):
  assert keys.meant(name, _KEYS)


@pytest.mark.parametrize(
  ('path', 'expected'),
  [
    # Another way of writing it.
    ('trust-region.delta-low', '--config.trust_region.delta_low=1'),
    ('Trust_Region.Rule', '--config.trust_region.rule=1'),
    # One bound for both.
    (
      'trust_region.delta',
      '--config.trust_region.delta_low=1 --config.trust_region.delta_high=1',
    ),
    (
      'trust-region.delta',
      '--config.trust_region.delta_low=1 --config.trust_region.delta_high=1',
    ),
    (
      'clip',
      '--config.trust_region.clip_low=1 --config.trust_region.clip_high=1',
    ),
    # Without its section, or in another one.
    ('group_size', '--config.data.group_size=1'),
    ('objective.clip_norm', '--config.optimizer.clip_norm=1'),
    (
      'learning_rate',
      '--config.optimizer.learning_rate=1 or --config.sft.learning_rate=1',
    ),
    # What others call it.
    ('steps', '--config.num_steps=1'),
    ('lr', '--config.optimizer.learning_rate=1'),
    ('data.prompts_per_step', '--config.data.num_prompts=1'),
    ('optimizer.lr', '--config.optimizer.learning_rate=1'),
    # Misspelled.
    ('trust_region.divergance', '--config.trust_region.divergence=1'),
    ('trust_region.ruel', '--config.trust_region.rule=1'),
    ('sede', '--config.seed=1'),
    ('zzzzzz', ''),
  ],
)
def test_the_key_that_was_meant(path, expected):
  assert keys.meant(path, _KEYS, '1') == expected


def test_without_a_value_none_is_shown():
  assert keys.meant('lr', _KEYS) == '--config.optimizer.learning_rate'


def test_a_key_is_no_problem():
  for path in ('seed', 'data.mixture[0]', 'data.fields.answer'):
    assert keys.problem(path, '1', _KEYS, _FILE) == ''


def test_a_problem_is_one_line_with_the_mend():
  assert keys.problem('zzzzzz', '1', _KEYS, _FILE) == (
    '--config.zzzzzz: no such key; configs/default.py lists them all.'
  )
  assert keys.problem('data.fields.zzzz', '1', _KEYS, _FILE) == (
    '--config.data.fields.zzzz: no such key; data.fields has answer, extra,'
    ' level, options, prompt, source; configs/default.py lists them all.'
  )
  section = keys.problem('data.zzzz', '1', _KEYS, _FILE)
  assert section.count('fields, ') == 1
  assert 'source, ' in section
  assert keys.problem('trust-region.rule', 'cppo', _KEYS, _FILE) == (
    '--config.trust-region.rule: no such key; did you mean'
    ' --config.trust_region.rule=cppo? configs/default.py lists them all.'
  )
  assert keys.problem('data', 'gsm8k', _KEYS, _FILE).startswith(
    '--config.data: a section; set its keys one by one'
  )


@pytest.mark.parametrize(
  ('path', 'value', 'expected'),
  [
    ('lora.targets', 'query,value', "('query', 'value')"),
    ('lora.targets', '[query, value]', "('query', 'value')"),
    ('lora.targets', 'query', "('query',)"),
    ('lora.targets', "('query','value')", "('query','value')"),
    ('sampling.stop_strings', '</s>', "('</s>',)"),
    ('sampling.stop_strings', 'User,', 'User,'),
    ('model.mlp_only_layers', '0,1', '0,1'),
    ('num_steps', '1e3', '1000'),
    ('num_steps', '1.5e1', '15'),
    ('num_steps', '1.23e1', '1.23e1'),
    ('num_steps', '1e99', str(int(1e99))),
    ('num_steps', 'ten', 'ten'),
    ('optimizer.learning_rate', '1e-4', '1e-4'),
    ('writers.tensorboard', '1e0', '1e0'),
    ('data.source', 'a,b', 'a,b'),
    ('nothing', '1e3', '1e3'),
  ],
)
def test_values_are_read_as_people_write_them(path, value, expected):
  assert keys.readable(path, value, _KEYS) == expected


@pytest.mark.parametrize(
  ('path', 'wanted'),
  [
    ('num_steps', 'a whole number, such as 200.'),
    ('writers.tensorboard', 'True or False.'),
    ('trust_region.delta_low', 'a number, such as 0.2.'),
    ('sampling.stop_strings', "a list, such as ('a', 'b')."),
  ],
)
def test_a_refused_value_says_what_is_taken(path, wanted):
  told = keys.refused(path, 'x', _KEYS)
  assert told == f"--config.{path}: got 'x'; {wanted}"
