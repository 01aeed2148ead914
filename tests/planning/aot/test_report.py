import dataclasses
import json

import pytest

from dppo_jax.planning.aot import (
  costs,
  hlo,
  plan,
  programs,
  report,
  roofline,
  topologies,
)


def _cost(**fields):
  return costs.Cost(**{**dict(origin='', shape='', count=36), **fields})


def _phase(**changed):
  array = hlo.NamedArray(
    name='jit(step)/div', shape='f32[4,9024,9024]', num_bytes=3 * 2**30
  )
  compiled = programs.Phase(
    name=programs.SAMPLING,
    runs=1,
    seconds=12.3,
    memory=programs.Memory(
      arguments=2**30, outputs=0, temporaries=2**31, code=0, beside=2**29
    ),
    cache=2**28,
    arguments=[],
    arrays=[array],
    collectives=[
      hlo.Collective(kind='all-gather', count=36, num_bytes=36 * 2**20)
    ],
    loops=[
      hlo.Loop(origin='a', trips=10, known=True),
      hlo.Loop(origin='b', trips=1, known=False),
    ],
    costs=[
      _cost(kind=costs.PRODUCT, cycles=4e6, num_bytes=2**30),
      _cost(kind='reduction', cycles=1e6, num_bytes=2**20),
      _cost(kind='Pallas call', cycles=None, num_bytes=2**21),
      _cost(kind='sort', cycles=None, num_bytes=0),
    ],
    refused='',
    unread='',
  )
  settings = dict(
    name=programs.SAMPLING,
    runs=1,
    num_bytes=3.5 * 2**30,
    fits=True,
    compiled=dataclasses.replace(compiled, **changed.pop('compiled', {})),
    work=roofline.Work(useful=3e15, flops=4e15, attention=1e15, num_bytes=0),
    compiled_s=None,
    estimate=roofline.StepEstimate(compute_s=2.0, memory_s=0.5, links_s=0.01),
    change_bytes=0,
  )
  return plan.PhasePlan(**{**settings, **changed})


def _plan(**changed):
  settings = dict(
    topology=topologies.parse('v5e:2x2', 2),
    mesh=dict(data=2, fsdp=1, expert=1, tensor=4),
    capacity=7 * 2**30,
    shapes={'parameters': 2**30},
    phases=(_phase(),),
    fits=True,
    change='',
    least_devices=3,
    step_s=2.0,
    tokens_per_step=1000,
    missing=(),
  )
  return plan.Plan(**{**settings, **changed})


def test_a_plan_in_words():
  text = report.show(_plan())
  for line in (
    'v5e:2x2: 2 slices, 8 × TPU v5 lite of 7.0 GiB, mesh data 2 · fsdp 1 ·'
    ' expert 1 · tensor 4',
    'sampling (compiled in 12 s)',
    '  memory           3.5 GiB',
    '      KV cache     256.0 MiB',
    '    other state    512.0 MiB',
    '       3.0 GiB f32[4,9024,9024] jit(step)/div',
    '    all-gather                     36 ×    1.0 MiB = 36.0 MiB sent per'
    ' device',
    '    1 loops counted at their bounds: at most',
    '    1 loops of unknown length counted once: at least',
    '  compiler         5e+06 cycles, 1.25 × its matrix products',
    '    matrix product        80.0%           36 ×    1.0 GiB of HBM',
    '    reduction             20.0%           36 ×    1.0 MiB of HBM',
    '    Pallas call            none           36 ×    2.0 MiB of HBM',
    '  FLOPs            3e+15 useful, 4e+15 with rematerialization, by formula,'
    ' all devices',
    '  estimate         at least 2 s: compute 2 s, memory 500 ms, links 10 ms',
    '  fits             50% of 7.0 GiB',
    'Fits.',
  ):
    assert line in text.splitlines()
  assert 'sort' not in text
  assert 'Estimate, not a measurement' in text
  assert 'at most 500 sampled tokens/s' in text


def test_kernels_are_counted_at_a_share_of_the_peak():
  assert 'by the compiler' not in report.show(_plan())
  text = report.show(_plan(phases=(_phase(compiled_s=3.25),)))
  assert (
    '  by the compiler  3.25 s, attention kernels at 40% of the peak and'
    ' collectives at nothing'
  ) in text.splitlines()


def test_what_is_missing_is_said():
  text = report.show(_plan(missing=('data.files: no file x.',)))
  assert text.splitlines()[-2:] == [
    'Not on this machine, and needed to run:',
    '  data.files: no file x.',
  ]


def test_what_does_not_fit_is_said_with_its_change():
  flags = '--config.learner.num_microbatches=16'
  phase = _phase(fits=False, change_bytes=2**30)
  settings = dict(phases=(phase,), fits=False, step_s=None)
  text = report.show(_plan(change=flags, **settings))
  assert 'fit     3.5 GiB of 7.0 GiB; 1.0 GiB with the change below' in text
  assert text.endswith(f'\nFits, as estimated, with {flags}\nDoes not fit.')
  flags += ' --config.data.num_prompts=4'
  text = report.show(_plan(change=flags, **settings))
  assert '(data.num_prompts: other results than the recipe' in text


def test_what_nothing_helps_says_how_many_devices_would():
  hopeless = _phase(fits=False)
  settings = dict(phases=(hopeless,), fits=False)
  text = report.show(_plan(**settings))
  assert text.splitlines()[-2].endswith(': use more devices.')
  text = report.show(_plan(least_devices=20, **settings))
  assert 'alone take 20 of these instead of 8. Or train an adapter' in text


def test_a_refusal_is_not_taken_apart():
  phase = _phase(fits=False, compiled=dict(refused='the compiler gave up'))
  text = report.show(_plan(phases=(phase,)))
  assert '3.5 GiB: the compiler gave up' in text
  assert 'jit(step)/div' in text
  assert 'temporaries' not in text


def test_a_program_that_cannot_be_read_has_unknown_collectives():
  phase = _phase(compiled=dict(unread='INTERNAL: no such opcode'))
  text = report.show(_plan(phases=(phase,)))
  assert 'do not match (INTERNAL: no such opcode)' in text
  assert 'links not known' in text
  assert 'all-gather' not in text


def test_without_a_compiler_links_are_not_known():
  phase = dataclasses.replace(_phase(), compiled=None, runs=0)
  text = report.show(_plan(phases=(phase,)))
  assert 'sampling, which this config does not run (from shapes)' in text
  assert 'links not known' in text


@pytest.mark.parametrize('name', ['topology', 'mesh', 'phases', 'fits'])
def test_json_has_all_of_it(name):
  assert name in json.loads(report.to_json(_plan()))


def test_json_keeps_the_numbers():
  (phase,) = json.loads(report.to_json(_plan()))['phases']
  assert phase['num_bytes'] == 3.5 * 2**30
  assert phase['compiled']['collectives'][0]['kind'] == 'all-gather'
  assert phase['estimate']['compute_s'] == 2.0
