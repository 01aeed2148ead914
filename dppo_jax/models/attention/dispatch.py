"""Which implementation of attention runs: the only place that decides.

`attend` is what models call; the contract stands in the package's docstring.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import logging

from jax.sharding import Mesh

from dppo_jax.base import Array
from dppo_jax.models import cpu_bfloat16
from dppo_jax.models.attention import (
  blockwise,
  by_columns,
  materialised,
  sharded,
  splash,
  triton,
)
from dppo_jax.models.attention.sources import KeySource

_LOGGER = logging.getLogger(__name__)
# Queries and keys of a block: on a CPU so few that the scores of all heads stay
# in its cache.
_CPU_BLOCK, _BLOCK = 128, 256
# Queries times keys up to which all scores are held: blocks would cost more.
_FEW_SCORES = 64 * 64
# Keys that a decode step reads at once: on a CPU so few that little is read in
# vain; an accelerator starts each block anew.
_CPU_DECODE_KEYS, _DECODE_KEYS = 128, 1024


def _takes_all(query: Array, sources: Sequence[KeySource]) -> str:
  del query, sources
  return ''


@dataclasses.dataclass(frozen=True)
class Implementation:
  """A way to compute attention.

  Attributes:
    platforms: that have it; empty for all.
    run: attention of one device; None where it depends on the platform.
    refuses: why it does not take a call, or ''.
    own_only: it takes no source but the sequence of the queries, whole.
  """

  platforms: tuple[str, ...]
  run: sharded.Attend | None
  refuses: Callable[[Array, Sequence[KeySource]], str] = _takes_all
  own_only: bool = False


IMPLEMENTATIONS = {
  'blockwise': Implementation((), None),
  'splash': Implementation(('tpu',), splash.attend, splash.refuses),
  'triton': Implementation(
    ('gpu',), triton.attend, triton.refuses, own_only=True
  ),
  'materialised': Implementation((), materialised.attend),
}
# Of long sequences under 'auto'; elsewhere blockwise.
_BEST = {'tpu': 'splash', 'gpu': 'triton'}


def attend(
  query: Array,
  sources: Sequence[KeySource],
  implementation: str,
  mesh: Mesh | None,
  *,
  columns: bool = False,
) -> Array:
  """softmax(q k / sqrt(head_dim)) v over all sources together.

  Args:
    query: [B, Q, H, head_dim].
    sources: what it sees.
    implementation: a key of `IMPLEMENTATIONS`, or 'auto': by platform
      and size.
    mesh: what rows and heads are laid over; None is one device of those here.
    columns: columns of queries and keys in place of heads, where it divides
      them.

  Returns:
    [B, Q, H, head_dim] in the dtype of the query; zeros where it sees no key.

  Raises:
    ValueError: the platform lacks the implementation.
  """
  platform = cpu_bfloat16.platform_of(mesh)
  name = _choose(platform, implementation, query, sources)
  columns = columns and by_columns.splits(mesh, query, sources)
  if columns and IMPLEMENTATIONS[name].own_only:
    _say_once(name, 'columns laid over the mesh')
    name = 'blockwise'
  if name == 'materialised' and not columns:
    return materialised.attend(query, [s.of_one_layer() for s in sources])
  alone = mesh is None or mesh.size == 1
  splits = columns or (not alone and sharded.splits(mesh, query, sources))
  if IMPLEMENTATIONS[name].run is not None and not (alone or splits):
    _say_once(name, 'rows or heads that the mesh does not divide')
    name = 'blockwise'
  run = IMPLEMENTATIONS[name].run
  if run is not None or columns or not (alone or splits):
    sources = [source.of_one_layer() for source in sources]
  if run is None:
    one_by_one = platform == 'cpu' and (alone or splits)
    run = functools.partial(_by_blocks, platform, one_by_one)
  if mesh is not None and splits:
    lay = by_columns.attend if columns else sharded.attend
    return lay(mesh, run, query, sources)
  return run(query, sources)


def _choose(
  platform: str,
  implementation: str,
  query: Array,
  sources: Sequence[KeySource],
) -> str:
  """Name of the implementation that runs."""
  check(implementation, platform)
  width = query.shape[1]
  lengths = [s.shape[2] for s in sources]
  name = _by_size(platform, implementation, width, lengths)
  why = IMPLEMENTATIONS[name].refuses(query, sources)
  if why:
    _say_once(name, why)
    return 'blockwise'
  return name


def _by_size(
  platform: str, implementation: str, width: int, lengths: Sequence[int]
) -> str:
  """Name of the implementation for so many queries and keys of sources."""
  longest = max(lengths)
  if implementation == 'materialised':
    return implementation
  if width == 1:
    few = longest <= decode_keys(platform)
    return 'materialised' if few else 'blockwise'
  if implementation != 'auto':
    return implementation
  if width * longest <= _FEW_SCORES:
    return 'materialised'
  best = _BEST.get(platform, 'blockwise')
  # Of every grouped pass: nothing to warn of.
  own_only = IMPLEMENTATIONS[best].own_only
  return 'blockwise' if own_only and len(lengths) > 1 else best


def num_scores(
  platform: str,
  implementation: str,
  *,
  rows: int,
  width: int,
  lengths: Sequence[int],
) -> int:
  """Scores of a head that a device holds in memory at once.

  Args:
    platform: of the devices.
    implementation: as in `attend`.
    rows: of queries on the device.
    width: queries of a row.
    lengths: keys of each source.
  """
  name = _by_size(platform, implementation, width, lengths)
  if name == 'materialised':
    return rows * width * sum(lengths)
  own_only = IMPLEMENTATIONS[name].own_only
  if IMPLEMENTATIONS[name].run and not (own_only and len(lengths) > 1):
    return 0  # Kernels keep them on the chip.
  size = _block(platform)
  at_once = 1 if platform == 'cpu' else rows
  return at_once * min(size, width) * min(size, max(lengths))


def check(implementation: str, platform: str) -> None:
  """Refuses an implementation that the platform lacks.

  Args:
    implementation: as in `attend`.
    platform: of `platform_of`.

  Raises:
    ValueError: it is unknown, or the platform lacks it.
  """
  if implementation == 'auto':
    return
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(
      f'model.attention: unknown {implementation!r}; known: auto,'
      f' {", ".join(IMPLEMENTATIONS)}.'
    )
  platforms = IMPLEMENTATIONS[implementation].platforms
  if platforms and platform not in platforms:
    raise ValueError(
      f'model.attention: {implementation!r} runs on {" and ".join(platforms)},'
      f' and the devices are {platform}; use auto, or blockwise, which runs'
      ' everywhere.'
    )


def _by_blocks(
  platform: str,
  one_by_one: bool,
  query: Array,
  sources: Sequence[KeySource],
) -> Array:
  size = _block(platform)
  decodes = query.shape[1] == 1
  blocks = blockwise.Blocks(
    rows=1 if one_by_one else query.shape[0],
    queries=size,
    keys=decode_keys(platform) if decodes else size,
  )
  return blockwise.attend(query, sources, blocks)


def _block(platform: str) -> int:
  return _CPU_BLOCK if platform == 'cpu' else _BLOCK


def decode_keys(platform: str) -> int:
  """Keys of a block that a decode step reads at once."""
  return _CPU_DECODE_KEYS if platform == 'cpu' else _DECODE_KEYS


@functools.cache
def _say_once(name: str, why: str) -> None:
  _LOGGER.warning(
    'model.attention: %s does not take %s; blockwise attention runs instead.',
    name,
    why,
  )
