"""A plan as text, and as JSON."""

from collections.abc import Iterator, Sequence
import dataclasses
import json
from typing import Any

from dppo_jax.planning.aot import costs, hlo, remedies, roofline
from dppo_jax.planning.aot.plan import PhasePlan, Plan
from dppo_jax.planning.memory import show_bytes


def to_json(plan: Plan) -> str:
  """The plan as JSON; sizes in bytes, times in seconds."""
  return json.dumps(dataclasses.asdict(plan), indent=2) + '\n'


def show(plan: Plan) -> str:
  """The plan in lines of text."""
  topology = plan.topology
  mesh = ' · '.join(f'{axis} {size}' for axis, size in plan.mesh.items())
  slices = f'{topology.num_slices} slices, ' if topology.num_slices > 1 else ''
  lines = [
    f'{topology.name}: {slices}{topology.num_devices:,} ×'
    f' {topology.device_kind} of {show_bytes(plan.capacity)}, mesh {mesh}',
    '',
    'Memory per device, estimated from shapes:',
    *(f'  {name:<16} {show_bytes(size)}' for name, size in plan.shapes.items()),
  ]
  for phase in plan.phases:
    lines += ['', *_phase(phase, plan)]
  lines += ['', *_totals(plan)]
  if plan.missing:
    lines += ['', 'Not on this machine, and needed to run:']
    lines += [f'  {problem}' for problem in plan.missing]
  return '\n'.join(lines)


def _phase(phase: PhasePlan, plan: Plan) -> Iterator[str]:
  runs = {0: ', which this config does not run', 1: ''}.get(
    phase.runs, f', {phase.runs} times per step'
  )
  found = phase.compiled
  source = 'from shapes' if found is None else 'compiled'
  if found is not None:
    source += f' in {found.seconds:.0f} s'
  yield f'{phase.name}{runs} ({source})'
  if found is None:
    yield f'  memory           {show_bytes(phase.num_bytes)}'
  elif found.refused:
    yield f'  memory           {show_bytes(phase.num_bytes)}: {found.refused}'
    yield from _arrays('largest', found.arrays)
  else:
    yield from _compiled(found)
  done = phase.work
  yield (
    f'  FLOPs            {done.useful:.3g} useful, {done.flops:.3g} with'
    ' rematerialization, by formula, all devices'
  )
  if phase.estimate is not None:
    spent = phase.estimate
    read = found is not None and not found.unread and not found.refused
    yield (
      f'  estimate         at least {_seconds(spent.seconds)}: compute'
      f' {_seconds(spent.compute_s)}, memory {_seconds(spent.memory_s)}, links'
      f' {_seconds(spent.links_s) if read else "not known"}'
    )
  if phase.compiled_s is not None:
    yield (
      f'  by the compiler  {_seconds(phase.compiled_s)}, attention kernels at'
      f' {roofline.KERNEL_SHARE:.0%} of the peak and collectives at nothing'
    )
  yield f'  {_verdict(phase, plan.capacity)}'


def _compiled(found: Any) -> Iterator[str]:
  memory = found.memory
  yield f'  memory           {show_bytes(memory.total)}'
  yield f'    arguments      {show_bytes(memory.arguments)}'
  yield f'    temporaries    {show_bytes(memory.temporaries)}'
  if found.cache:
    yield f'      KV cache     {show_bytes(found.cache)}'
  yield f'    outputs        {show_bytes(memory.outputs)}'
  yield f'    code           {show_bytes(memory.code)}'
  yield f'    other state    {show_bytes(memory.beside)}'
  yield from _arrays('arguments', found.arguments)
  if found.unread:
    yield (
      '  collectives      not known: libtpu and jaxlib do not match'
      f' ({found.unread}); jax[tpu] brings the libtpu that does'
    )
    return
  yield from _arrays('arrays', found.arrays)
  yield f'  collectives      {"" if found.collectives else "none"}'.rstrip()
  for one in found.collectives:
    yield (
      f'    {one.kind:<20} {one.count:>12,.0f} ×'
      f' {show_bytes(one.num_bytes / max(one.count, 1)):>10} ='
      f' {show_bytes(one.num_bytes)} sent per device'
    )
  unknown = sum(not loop.known for loop in found.loops)
  bounded = len(found.loops) - unknown
  if bounded:
    yield f'    {bounded} loops counted at their bounds: at most'
  if unknown:
    yield f'    {unknown} loops of unknown length counted once: at least'
  yield from _costs(found.costs)


def _costs(found: Sequence[costs.Cost]) -> Iterator[str]:
  """The compiler's estimates by kind, and the bytes of what has none."""
  total = costs.cycles(found)
  if total:
    products = costs.cycles(one for one in found if one.kind == costs.PRODUCT)
    more = f', {total / products:.2f} × its matrix products' if products else ''
    yield f'  compiler         {total:.3g} cycles{more}'
  elif found:
    yield '  operations       (this compiler estimates no time)'
  for one in found:
    size = f'{show_bytes(one.num_bytes):>10} of HBM'
    if one.cycles is not None:
      share = f'{one.cycles / total:.1%}'
      yield f'    {one.kind:<20} {share:>6} {one.count:>12,.0f} × {size}'
    elif one.num_bytes:
      yield f'    {one.kind:<20}   none {one.count:>12,.0f} × {size}'


def _arrays(title: str, arrays: Sequence[hlo.NamedArray]) -> Iterator[str]:
  if arrays:
    yield f'  largest {title}' if title != 'largest' else '  largest'
  for one in arrays:
    yield f'    {show_bytes(one.num_bytes):>10} {one.shape} {one.name}'.rstrip()


def _verdict(phase: PhasePlan, capacity: float) -> str:
  if phase.fits:
    share = phase.num_bytes / capacity
    return f'fits             {share:.0%} of {show_bytes(capacity)}'
  text = (
    f'does not fit     {show_bytes(phase.num_bytes)} of {show_bytes(capacity)}'
  )
  if phase.change_bytes:
    return f'{text}; {show_bytes(phase.change_bytes)} with the change below'
  return text


def _totals(plan: Plan) -> Iterator[str]:
  if plan.step_s is not None:
    yield (
      f'Estimate, not a measurement: a step takes at least'
      f' {_seconds(plan.step_s)}, at most'
      f' {plan.tokens_per_step / plan.step_s:,.0f} sampled tokens/s, with'
      ' devices at the peaks of their data sheets, completions at full length'
      ' and no verifier; traffic between slices counts as if within a slice.'
    )
  if plan.change:
    yield f'Fits, as estimated, with {plan.change}'
    changed = [path for path in remedies.RESULTS if path in plan.change]
    if changed:
      yield f'({" and ".join(changed)}: other results than the recipe.)'
  elif not plan.fits:
    yield _hopeless(plan)
  yield 'Fits.' if plan.fits else 'Does not fit.'


def _hopeless(plan: Plan) -> str:
  here, least = plan.topology.num_devices, plan.least_devices
  text = 'None of the changes tried is enough: use more devices'
  if least <= here:
    return f'{text}.'
  return (
    f'{text}; weights, gradients and optimizer state alone take {least:,} of'
    f' these instead of {here:,}. Or train an adapter: --config.lora.rank=32'
  )


def _seconds(value: float) -> str:
  if value < 1:
    return f'{value * 1e3:.3g} ms'
  return f'{value:,.0f} s' if value >= 100 else f'{value:.3g} s'
