import dataclasses

import jax
import pytest

from dppo_jax.configs import qwen3_8b_base
from dppo_jax.planning import mesh_check, mesh_layouts
from dppo_jax.planning.mesh_layouts import Layout
from dppo_jax.runtime.programs import compiled
from tests.support import programs, runs

_WIDE = Layout(data=2, fsdp=2, tensor=2)
# Thresholds that some tokens exceed and others do not.
_SETTINGS = dict(
  trust_region__delta_low=2e-4,
  trust_region__delta_high=2e-4,
  model__num_layers=1,
  learner__share_prompt_prefix=False,
)


def _compare(*layouts):
  told = []
  settings = runs.config(**_SETTINGS)
  with runs.quick_compilation():
    found = mesh_check.compare(settings, 8, told.append, layouts)
  assert len(told) == len(layouts)
  return found, '\n'.join(mesh_check.report(settings, found))


def test_meshes_and_orders_sample_and_decide_alike():
  shuffled = dataclasses.replace(_WIDE, order='shuffled')
  found, text = _compare(Layout(), shuffled)
  for each in found:
    assert each.agrees, text
    assert each.num_flipped == 0
    # A decision could have flipped, and a token have been another.
    assert 0 < each.num_masked < each.num_decisions == each.num_tokens
    assert each.divergence_error < 1e-6
  assert found[1].loss_error > 0  # It was another program.
  assert 'Tokens: the same on all of them.' in text
  assert f'0 of {found[0].num_decisions:,} decisions flipped' in text
  assert 'need not be bitwise equal' in text
  assert 'tests/integration/test_two_processes.py' in text


def test_a_mesh_that_changes_the_law_is_found(monkeypatch):
  with programs.shared():
    compile_sampler = compiled.compile_sampler
    compile_step = compiled.compile_step

  def sick_sampler(parts, config):
    sample, size = compile_sampler(parts, config), parts.mesh.size
    return lambda params, prompts, key: sample(
      params, prompts, jax.random.fold_in(key, size)
    )

  def sick_step(experiment, parts, *, recording):
    loss = experiment.loss
    if parts.mesh.size > 1:
      bounds = dataclasses.replace(loss.bounds, delta_low=0.0, delta_high=0.0)
      loss = dataclasses.replace(loss, bounds=bounds, ratio_floor=1.01)
    experiment = dataclasses.replace(experiment, loss=loss)
    return compile_step(experiment, parts, recording=recording)

  monkeypatch.setattr(compiled, 'compile_sampler', sick_sampler)
  monkeypatch.setattr(compiled, 'compile_step', sick_step)
  found, text = _compare(Layout(), Layout(data=2))
  assert found[0].agrees
  assert not found[1].agrees
  assert found[1].num_other > found[1].num_tokens / 4
  assert found[1].num_flipped > 0
  assert found[1].loss_error > mesh_check.LOSS_TOLERANCE
  assert 'TOKENS DIFFER' in text
  assert 'LOSSES DIFFER' in text
  assert 'do not train on such a mesh' in text


def test_the_exit_code_says_whether_they_agree(monkeypatch):
  def outcome(*compared):
    monkeypatch.setattr(mesh_check, 'compare', lambda *_: list(compared))
    return mesh_check.check(runs.config(), 8, lambda line: None)

  one, two = (
    mesh_check.LayoutComparison(layout=layout) for layout in (Layout(), _WIDE)
  )
  assert outcome(one, two)
  assert not outcome(one, dataclasses.replace(two, num_other=1))
  assert not outcome(one, dataclasses.replace(two, loss_error=2e-5))
  assert not outcome(one, dataclasses.replace(two, loss_error=float('inf')))
  # Nothing was compared.
  assert not outcome(one, dataclasses.replace(two, skipped='too big'))


def test_what_is_too_big_here_is_told_with_what_to_do(monkeypatch):
  settings = qwen3_8b_base.get_config()
  told = []
  assert not mesh_check.check(settings, 8, told.append)
  text = '\n'.join(told)
  assert 'skipped: too ' in text
  assert '--config.model.num_layers=2' in text


@pytest.mark.parametrize(
  ('dtype', 'advice'),
  [
    ('float32', 'more than rounding'),
    ('bfloat16', 'can change a sampled token'),
  ],
)
def test_advice_depends_on_the_precision(dtype, advice):
  settings = runs.config(model__dtype=dtype)
  sick = mesh_check.LayoutComparison(layout=_WIDE, num_other=3, num_tokens=9)
  well = mesh_check.LayoutComparison(layout=Layout(), num_tokens=9)
  assert advice in '\n'.join(mesh_check.report(settings, [well, sick]))


def test_prompts_and_rewards_depend_on_seed_and_step_only():
  wide = mesh_layouts.build(runs.config(), _WIDE, 8)
  narrow = mesh_layouts.build(runs.config(), Layout(), 8)

  def prompts(experiment, step):
    return mesh_check.random_prompts(experiment, step).tokens.tolist()

  assert prompts(wide, 1) == prompts(narrow, 1) != prompts(narrow, 0)
  rewards = mesh_check.random_rewards(narrow, 0)
  assert rewards.shape == (32,)
  assert set(rewards.tolist()) == {0.0, 1.0}
  mask = mesh_check.random_prompts(narrow, 0).mask
  assert mask[:, -1].all()
  assert not mask.all()
