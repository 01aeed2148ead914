"""What a compiler says that a program costs: cycles by kind, bytes of HBM.

The compiler for TPUs writes its estimate beside most operations. It is a model
of a core and not a measurement: of use are ratios of programs of one shape for
one chip. Pallas calls, sorts, scatters and collectives have no estimate; they
are listed with their bytes.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import re

from dppo_jax.planning.aot import hlo

PRODUCT, ELEMENTWISE, KERNEL = 'matrix product', 'elementwise', 'Pallas call'
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_CALLED = re.compile(r'\bcalls=%?([\w.\-]+)')
# A type of one array with its layout; S(n), n > 0, is not HBM.
_ARRAY = re.compile(r'\b[a-z]+\d*[a-z0-9]*\[[\d,]*\](?:\{[^}]*\})?')
# The first of these opcodes in a fusion names its kind.
_KINDS = (
  ('convolution', PRODUCT),
  ('dot', PRODUCT),
  ('sort', 'sort'),
  ('scatter', 'scatter'),
  ('gather', 'gather'),
  ('reduce', 'reduction'),
  ('dynamic-update-slice', 'update'),
  ('dynamic-slice', 'slice'),
)
# Neither read nor write by themselves.
_FREE = {'after-all', 'partition-id', 'replica-id', 'iota', 'opt-barrier'}
_FREE_CALLS = {'ConcatBitcast', 'AllocateBuffer', 'Sharding'}
_SLICES = ('dynamic-slice', 'slice', 'gather')
_UPDATES = {'dynamic-update-slice': 1, 'scatter': 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
  """Operations of one kind and one place in the program, on one device.

  Attributes:
    kind: matrix product, reduction, copy, a custom call's target, …
    origin: the last part of JAX's name stack, '' if there is none.
    shape: of the result.
    count: executions in one run of the program.
    cycles: the compiler's estimate of all of them; None if it has none.
    num_bytes: of HBM, read and written by all of them.
  """

  kind: str
  origin: str
  shape: str
  count: float
  cycles: float | None
  num_bytes: float


def costs(module: hlo.Module, given: Mapping[str, int]) -> list[Cost]:
  """Costs of a program, the largest estimates first, then those without one.

  Args:
    module: the program.
    given: trip counts of loops, see `hlo.Module.walk`.
  """
  sums: dict[tuple[str, str, str, bool], list[float]] = {}
  reader = _Reader(module)
  for name, one, times in module.walk(given)[0]:
    kind = reader.kind(one)
    if not kind:
      continue
    found = _CYCLES.search(one.text)
    place = one.origin.rpartition('/')[2]
    shape = one.type.partition('{')[0]
    total = sums.setdefault((kind, place, shape, bool(found)), [0.0] * 3)
    total[0] += times
    total[1] += times * float(found[1]) if found else 0.0
    total[2] += times * reader.num_bytes(name, one)
  listed = [
    Cost(
      kind=kind,
      origin=place,
      shape=shape,
      count=count,
      cycles=cycles if known else None,
      num_bytes=size,
    )
    for (kind, place, shape, known), (count, cycles, size) in sums.items()
  ]
  return sorted(listed, key=lambda one: (-(one.cycles or 0), -one.num_bytes))


def cycles(found: Iterable[Cost]) -> float:
  """Estimate of everything that has one."""
  return sum(one.cycles or 0.0 for one in found)


def by_kind(found: Sequence[Cost]) -> list[Cost]:
  """Costs summed over the places of a kind, estimates and others apart."""
  sums: dict[tuple[str, bool], Cost] = {}
  for one in found:
    key = (one.kind, one.cycles is None)
    old = sums.get(key)
    sums[key] = dataclasses.replace(
      one,
      origin='',
      shape='',
      count=one.count + (old.count if old else 0),
      cycles=None
      if one.cycles is None
      else one.cycles + ((old and old.cycles) or 0),
      num_bytes=one.num_bytes + (old.num_bytes if old else 0),
    )
  ranked = sums.values()
  return sorted(ranked, key=lambda one: (-(one.cycles or 0), -one.num_bytes))


def passes(module: hlo.Module, size: float) -> float:
  """Times that all of an array of at least `size` bytes is read.

  Products aside, which read the weights, and what is fused with them. A copy
  into the chip's own memory counts as a pass.
  """
  reader = _Reader(module)
  return sum(
    times * sum(read >= size for read in reader.reads(name, one))
    for name, one, times in module.walk({})[0]
    if reader.kind(one) not in ('', PRODUCT)
  )


class _Reader:
  """Kinds and bytes of instructions, which read the computations they call."""

  def __init__(self, module: hlo.Module):
    self._module = module
    self._types: dict[str, dict[str, str]] = {}

  def kind(self, one: hlo.Instruction) -> str:
    """Kind of an instruction; '' if it costs nothing."""
    opcode = one.opcode.removesuffix('-start')
    if opcode in hlo.VIEWS | _FREE or one.opcode.endswith(('-done', '-update')):
      return ''
    if opcode == 'custom-call':
      target = _TARGET.search(one.text)
      name = target[1] if target else opcode
      if name in _FREE_CALLS:
        return ''
      return KERNEL if name == 'tpu_custom_call' else name
    if opcode in hlo.COLLECTIVES:
      return opcode
    if opcode == 'copy' or one.opcode in ('slice-start', 'transpose'):
      return 'copy'
    inside = {opcode}
    called = _CALLED.search(one.text)
    if called:
      inside |= self._opcodes(called[1])
    return next((kind for code, kind in _KINDS if code in inside), ELEMENTWISE)

  def num_bytes(self, name: str, one: hlo.Instruction) -> float:
    """Bytes of HBM that an instruction of a computation reads and writes."""
    if one.opcode.endswith('-start'):
      # (operand, result, …): what moves, on both sides if both are in HBM.
      parts = hlo.parts(one.type)
      ends = parts[:2] if len(parts) > 1 else [one.type] * 2
      moved = min(hlo.type_bytes(part) for part in ends)
      return moved * sum(hbm_bytes(part) > 0 for part in ends)
    called = _CALLED.search(one.text)
    types = self._types_of(name)
    operands = [types.get(operand, '') for operand in one.operands]
    if one.opcode in _SLICES:
      operands = [one.type, *operands[1:]]
    if one.opcode in _UPDATES:
      operands[0] = ''
      return sum(map(hbm_bytes, operands)) + _written(operands, one)
    if one.opcode != 'fusion' or not called:
      return hbm_bytes(one.type) + sum(map(hbm_bytes, operands))
    read = sum(
      min(hbm_bytes(kind), self._read(called[1], i))
      for i, kind in enumerate(operands)
    )
    return read + self._fusion_writes(called[1], one)

  def reads(self, name: str, one: hlo.Instruction) -> list[float]:
    """Bytes that an instruction reads of each operand, in any memory."""
    types = self._types_of(name)
    sizes = [hlo.type_bytes(types.get(own, '')) for own in one.operands]
    called = _CALLED.search(one.text)
    if one.opcode in _SLICES:
      sizes[0] = hlo.type_bytes(one.type)
    elif one.opcode in _UPDATES:
      sizes[0] = 0.0
    elif one.opcode == 'fusion' and called:
      sizes = [
        min(size, self._read(called[1], i)) for i, size in enumerate(sizes)
      ]
    return sizes

  def _opcodes(self, name: str) -> set[str]:
    found: set[str] = set()
    for one in self._module.computations.get(name, ()):
      found.add(one.opcode)
      called = _CALLED.search(one.text)
      if called:
        found |= self._opcodes(called[1])
    return found

  def _types_of(self, name: str) -> dict[str, str]:
    if name not in self._types:
      lines = self._module.computations.get(name, ())
      self._types[name] = {one.name: one.type for one in lines}
    return self._types[name]

  def _read(self, name: str, number: int) -> float:
    """Bytes that a computation reads of a parameter: of its slices, if all."""
    lines = self._module.computations.get(name, ())
    own = next(
      (
        one.name
        for one in lines
        if one.opcode == 'parameter' and one.text.startswith(f'{number})')
      ),
      '',
    )
    total = 0.0
    for one in lines:
      if own not in one.operands:
        continue
      place = one.operands.index(own)
      called = _CALLED.search(one.text)
      if one.opcode in _SLICES and place == 0:
        total += hlo.type_bytes(one.type)
      elif one.opcode in _UPDATES and place == 0:
        continue
      elif called:
        total += self._read(called[1], place)
      else:
        return float('inf')
    return total

  def _fusion_writes(self, name: str, fusion: hlo.Instruction) -> float:
    """Bytes that a fusion writes: of an update in place, what is updated."""
    lines = self._module.computations.get(name, ())
    root = lines[-1] if lines else fusion
    called = _CALLED.search(root.text)
    if root.opcode == 'fusion' and called:
      return self._fusion_writes(called[1], fusion)
    if root.opcode in _UPDATES and hbm_bytes(fusion.type):
      types = self._types_of(name)
      return _written([types.get(n, '') for n in root.operands], root)
    return hbm_bytes(fusion.type)


def _written(operands: Sequence[str], one: hlo.Instruction) -> float:
  """Bytes of an update; a scatter also reads what it adds to."""
  place = _UPDATES[one.opcode]
  size = hlo.type_bytes(operands[place]) if len(operands) > place else 0.0
  return 2 * size if one.opcode == 'scatter' else size


def hbm_bytes(text: str) -> float:
  """Bytes of the arrays of a type that are in HBM.

  >>> hbm_bytes('(f32[8]{0:T(256)}, f32[8]{0:T(256)S(1)})')
  32.0
  """
  arrays = [one for one in _ARRAY.findall(text) if 'S(' not in one]
  return float(sum(map(hlo.type_bytes, arrays)))
