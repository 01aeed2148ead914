"""Analysis of optimized HLO text: loops, collectives, large arrays.

A loop's body occurs once in the text, so its contents are multiplied by the
trip count: stated by the compiler, named by its scope, bounded by its
condition, or given by the caller.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import math
import re

_ITEMSIZES = {'pred': 1, 's4': 0.5, 'u4': 0.5, 'token': 0}
_SHAPE = re.compile(r'\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]')
_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?([\w.\-]+) = ')
_CALLED = re.compile(r'\b(?:calls|to_apply)=%?([\w.\-]+)')
_BRANCHES = re.compile(
  r'\b(?:branch_computations=\{([^}]*)\}'
  r'|(?:true|false)_computation=%?([\w.\-]+))'
)
# A scope that says how often a loop is run whose bounds are data.
_TURNS = re.compile(r'\babout_(\d+)_turns/while$')
COLLECTIVES = (
  'all-gather',
  'all-reduce',
  'reduce-scatter',
  'all-to-all',
  'ragged-all-to-all',
  'collective-permute',
  'collective-broadcast',
  'send',  # From slice to slice.
)
# Opcodes that allocate no array.
VIEWS = {'parameter', 'tuple', 'get-tuple-element', 'bitcast', 'while'}
VIEWS |= {'conditional', 'call', 'constant', 'optimization-barrier'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instruction:
  """A line of a computation.

  Attributes:
    name: unique in its computation.
    type: as written, layouts included.
    opcode: of the instruction.
    text: everything after the opcode.
  """

  name: str
  type: str
  opcode: str
  text: str

  @property
  def origin(self) -> str:
    """JAX's name stack: its place in the program."""
    return _first(r'op_name="([^"]*)"', self.text) or ''

  @property
  def operands(self) -> list[str]:
    """Names of what it reads; of a parameter or a constant, its text."""
    inside = self.text[: _end_of_operands(self.text)]
    return [part.split()[-1].lstrip('%') for part in _split(inside) if part]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
  """Collectives of one kind, on one device, in one run of the program.

  Attributes:
    kind: all-gather, all-reduce, …
    count: number of executions.
    num_bytes: sent per device, on a ring of g devices: (g - 1) / g of the
      gathered bytes, twice that for an all-reduce, once for a reduce-scatter.
  """

  kind: str
  count: float
  num_bytes: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop:
  """A loop whose trip count the compiler does not state.

  Attributes:
    origin: JAX's name stack.
    trips: factor applied to its body.
    known: whether that is a bound, said by the scope, or given; otherwise the
      body counts once.
  """

  origin: str
  trips: int
  known: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedArray:
  """An array of one device.

  Attributes:
    name: JAX's name stack, or the opcode.
    shape: 'bf16[36,4,8000]'.
    num_bytes: unpadded.
  """

  name: str
  shape: str
  num_bytes: float


class Module:
  """A parsed module.

  Attributes:
    computations: instructions by name.
    entry: name of the outermost.
  """

  def __init__(self, text: str):
    """Parses; raises ValueError if there is no entry."""
    self.computations: dict[str, list[Instruction]] = {}
    self.entry = ''
    current: list[Instruction] = []
    for line in text.splitlines():
      head = _COMPUTATION.match(line)
      if head:
        current = self.computations.setdefault(head[2], [])
        self.entry = head[2] if head[1] else self.entry
      elif _INSTRUCTION.match(line):
        current.append(_parse(line))
    if not self.entry:
      raise ValueError('not the text of an HLO module: no ENTRY computation.')

  def walk(
    self, given: Mapping[str, int]
  ) -> tuple[list[tuple[str, Instruction, float]], list[Loop]]:
    """Instructions executed outside of fusions, with execution counts.

    Args:
      given: trip counts of loops that the text does not state, by a part of
        their origin; the first match is used.

    Returns:
      (computation, instruction, count), collectives of fusions included; and
      the loops whose trip counts are bounds, given or unknown.
    """
    found: list[tuple[str, Instruction, float]] = []
    loops: list[Loop] = []

    def visit(name: str, times: float, fused: bool) -> None:
      for one in self.computations.get(name, ()):
        if not fused or _kind(one.opcode):
          found.append((name, one, times))
        if one.opcode == 'while':
          trips = self._trips(one, given, loops)
          condition = _first(r'condition=%?([\w.\-]+)', one.text)
          visit(condition, times * trips, fused)
          visit(_first(r'body=%?([\w.\-]+)', one.text), times * trips, fused)
        for branch in _branches(one):
          visit(branch, times, fused)
        called = _CALLED.search(one.text)
        if called and not _kind(one.opcode) and not _finishes(one.opcode):
          inside = fused or one.opcode != 'call'
          visit(called[1], times, inside)

    visit(self.entry, 1.0, False)
    return found, loops

  def _trips(
    self, loop: Instruction, given: Mapping[str, int], loops: list[Loop]
  ) -> int:
    stated = _first(r'"known_trip_count":\{"n":"(\d+)"', loop.text)
    if stated:
      return int(stated)
    origin = loop.origin
    said = _TURNS.search(origin)
    if said:
      loops.append(Loop(origin=origin, trips=int(said[1]), known=True))
      return int(said[1])
    bound = self._bound(_first(r'condition=%?([\w.\-]+)', loop.text))
    trips = next((n for part, n in given.items() if part in origin), bound)
    known = trips is not None
    loops.append(Loop(origin=origin, trips=trips or 1, known=known))
    return trips or 1

  def _bound(self, condition: str) -> int | None:
    """n of `i < n`, if the condition is one comparison with a constant."""
    names = [condition]
    lines = list(self.computations.get(condition, ()))
    for one in self.computations.get(condition, ()):
      called = _CALLED.search(one.text)
      if called and called[1] not in names:
        names.append(called[1])
        lines += self.computations.get(called[1], ())
    compares = [
      one for one in lines
      if one.opcode == 'compare' and 'direction=LT' in one.text
    ]  # fmt: skip
    constants = [
      int(one.text[: one.text.index(')')])
      for one in lines
      if one.opcode == 'constant' and re.match(r'\d+\)', one.text)
      and one.type.startswith('s32[]')
    ]  # fmt: skip
    return constants[0] if len(compares) == len(constants) == 1 else None


def collectives(
  module: Module, given: Mapping[str, int]
) -> tuple[list[Collective], list[Loop]]:
  """Collectives by kind, the largest first; and loops without exact trip count.

  Args:
    module: the program.
    given: see `Module.walk`.

  Returns:
    The collectives, and the loops whose trip counts are not stated.
  """
  sums: dict[str, list[float]] = {}
  found, loops = module.walk(given)
  for name, one, times in found:
    kind = _kind(one.opcode)
    if not kind:
      continue
    if kind == 'all-reduce' and name.startswith('all-reduce-scatter'):
      kind = 'reduce-scatter'
      size = _sent('all-reduce', one) / 2
    else:
      size = _sent(kind, one)
    total = sums.setdefault(kind, [0.0, 0.0])
    total[0] += times
    total[1] += times * size
  listed = [
    Collective(kind=kind, count=count, num_bytes=size)
    for kind, (count, size) in sums.items()
  ]
  return sorted(listed, key=lambda one: -one.num_bytes), loops


def largest_arrays(module: Module, number: int) -> list[NamedArray]:
  """The largest arrays that a program allocates; some may share memory."""
  seen: dict[tuple[str, str], NamedArray] = {}
  for _, one, _ in module.walk({})[0]:
    if one.opcode in VIEWS or _finishes(one.opcode) or one.type[0] == '(':
      continue
    shape = one.type.partition('{')[0]
    name = one.origin or one.opcode
    seen[name, shape] = NamedArray(
      name=name, shape=shape, num_bytes=type_bytes(shape)
    )
  ranked = sorted(seen.values(), key=lambda array: -array.num_bytes)
  return ranked[:number]


def loop_carries(
  module: Module,
) -> Iterator[list[tuple[str, tuple[int, ...]]]]:
  """Type and dimensions of every array carried by a loop, per loop."""
  for _, one, _ in module.walk({})[0]:
    if one.opcode == 'while':
      yield [
        (f'{dtype}[{dims}]', _dimensions(dims))
        for dtype, dims in _SHAPE.findall(one.type)
      ]


def type_bytes(text: str) -> float:
  """Bytes of an HLO type, summed over a tuple.

  >>> type_bytes('(f32[2,3]{1,0}, bf16[4])')
  32.0
  """
  return float(
    sum(
      _itemsize(dtype) * math.prod(_dimensions(dims))
      for dtype, dims in _SHAPE.findall(text)
    )
  )


def _itemsize(dtype: str) -> float:
  if dtype in _ITEMSIZES:
    return _ITEMSIZES[dtype]
  bits = re.search(r'\d+', dtype)  # f8e4m3fn, bf16, s32, c64, …
  return int(bits[0]) / 8 if bits else 0


def _dimensions(text: str) -> tuple[int, ...]:
  return tuple(int(size) for size in text.split(',') if size)


def _first(pattern: str, text: str) -> str:
  found = re.search(pattern, text)
  return found[1] if found else ''


def _parse(line: str) -> Instruction:
  name, rest = line.split(' = ', 1)
  end = _end_of_type(rest)
  opcode, _, text = rest[end:].strip().partition('(')
  name = name.split()[-1].lstrip('%')
  return Instruction(name=name, type=rest[:end], opcode=opcode, text=text)


def _end_of_operands(text: str) -> int:
  depth = 1
  for i, letter in enumerate(text):
    depth += (letter in '([{') - (letter in ')]}')
    if not depth:
      return i
  return len(text)


def _end_of_type(text: str) -> int:
  if not text.startswith('('):
    return text.index(' ')
  depth = 0
  for i, letter in enumerate(text):
    depth += (letter == '(') - (letter == ')')
    if not depth:
      return i + 1
  raise ValueError(f'not an HLO type: {text[:80]!r}')


def _kind(opcode: str) -> str:
  """Kind of a collective, such as 'all-gather' of all-gather-start; else ''."""
  kind = opcode.removesuffix('-start')
  return kind if kind in COLLECTIVES else ''


def _finishes(opcode: str) -> bool:
  return opcode.endswith(('-done', '-update'))


def _branches(one: Instruction) -> list[str]:
  names = []
  for several, single in _BRANCHES.findall(one.text):
    names += [part.strip().lstrip('%') for part in several.split(',') if part]
    names += [single] if single else []
  return names


def _sent(kind: str, one: Instruction) -> float:
  result = one.type
  if one.opcode.endswith('-start') and kind != 'all-reduce':
    result = parts(result)[1]  # (operands, results, …)
  elif kind == 'send':
    return type_bytes(parts(result)[0])  # (operand, context, token)
  size, group = type_bytes(result), _group_size(one.text)
  share = (group - 1) / group if group else 1.0
  if kind == 'all-reduce':
    return 2 * size * share
  if kind == 'reduce-scatter':
    return size * max(group - 1, 1)
  return size if kind.startswith('collective') else size * share


def parts(text: str) -> list[str]:
  """Parts of a tuple type; of another, itself.

  >>> parts('(f32[2]{0}, (s32[], u32[]))')
  ['f32[2]{0}', '(s32[], u32[])']
  """
  return _split(text[1:-1]) if text.startswith('(') else [text]


def _split(text: str) -> list[str]:
  """Parts between the commas that stand in no bracket."""
  depth, found = 0, ['']
  for letter in text:
    depth += (letter in '([{') - (letter in ')]}')
    if letter == ',' and not depth:
      found.append('')
    else:
      found[-1] += letter
  return [part.strip() for part in found]


def _group_size(text: str) -> int:
  """Devices per replica group; 0 if not stated."""
  iota = _first(r'replica_groups=\[\d+,(\d+)\]', text)
  if iota:
    return int(iota)
  # Axes of a mesh: mesh['a'=8,'b'=2] {'a','b'}.
  axes = re.search(r"replica_groups=\S*\[('[^]]*)\]\s*\{([^}]*)\}", text)
  if axes:
    sizes = dict(re.findall(r"'([^']+)'=(\d+)", axes[1]))
    named = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", axes[2])
    return math.prod(int(part or sizes[name]) for name, part in named)
  listed = _first(r'replica_groups=\{\{([\d,]+)\}', text)
  return len(listed.split(',')) if listed else 0
