"""Pages of the site, assembled from docs/, the code and the results.

Links are written for the repository's host. Their targets outside docs/ are
copied: Markdown and pictures unchanged, sources as a page of code. Mathematics
becomes MathML, which browsers render without scripts.
"""

import os
import pathlib
import re
import shutil

from latex2mathml import converter

from dppo_jax.experiments.docs import notebooks

SOURCES = 'repository'  # Folder of files from outside docs/.
API = ('base', 'parallel', 'ops', 'lm_head', 'models', 'sampling', 'learner')
_API_FOLDER = 'reference/api'

# A separate code span is skipped; one within the text of a link is not.
_LINK = re.compile(
  r'(?P<code>`[^`\n]*`)|(!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()([^()\s]+)(\))'
)
_FENCE = re.compile(r'^(```.*?^```[ ]*$)', re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r'(`[^`\n]*`)')
_BLOCK_MATH = re.compile(r'\$\$(.+?)\$\$', re.DOTALL)
_MATH = re.compile(r'(?<![\\$])\$(?!\s)([^$\n]*(?:\n[^$\n]+)?)(?<!\s)\$')
_LANGUAGES = {'.py': 'python', '.sbatch': 'bash', '.toml': 'toml'}


def assemble(root: pathlib.Path, out: pathlib.Path) -> None:
  """Writes all pages into an empty folder.

  Args:
    root: of the repository.
    out: replaced.

  Raises:
    ValueError: a link's target does not exist.
  """
  shutil.rmtree(out, ignore_errors=True)
  copy = _Copy(root, out)
  for path in sorted((root / 'docs').rglob('*')):
    if path.is_file():
      copy.put(path)
  (out / 'notebooks').mkdir(parents=True, exist_ok=True)
  for name in notebooks.names(root):
    notebook = notebooks.kept(root, name) or notebooks.read(root, name)
    text = notebooks.page(notebook, name, out / 'notebooks')
    (out / 'notebooks' / f'{name}.md').write_text(outside_code(text, _math))
  for name in API:
    (out / _API_FOLDER).mkdir(parents=True, exist_ok=True)
    (out / _API_FOLDER / f'{name}.md').write_text(api_page(root, name))


def modules(root: pathlib.Path, name: str) -> list[str]:
  """Dotted names of a module, or of all modules of a package."""
  folder = root / 'dppo_jax' / name
  if not folder.is_dir():
    return [f'dppo_jax.{name}']
  found = sorted(path.stem for path in folder.glob('*.py'))
  return [f'dppo_jax.{name}.{m}' for m in found if m != '__init__']


def api_page(root: pathlib.Path, name: str) -> str:
  """API page of a package: its docstrings, module by module."""
  parts = [f'# `dppo_jax.{name}`']
  found = modules(root, name)
  for module in found:
    if len(found) > 1:
      parts.append(f'## `{module.removeprefix("dppo_jax.")}`')
    parts.append(f'::: {module}')
  return '\n\n'.join(parts) + '\n'


def outside_code(text: str, change) -> str:
  """Text changed outside of fences and code spans."""
  parts = _FENCE.split(text)
  for i in range(0, len(parts), 2):
    spans = _INLINE.split(parts[i])
    # Links may contain code spans; `_Copy` changes them as a whole.
    spans[::2] = [change(span) for span in spans[::2]]
    parts[i] = ''.join(spans)
  return ''.join(parts)


def prose(text: str, change) -> str:
  """Text changed outside of fences."""
  parts = _FENCE.split(text)
  parts[::2] = [change(part) for part in parts[::2]]
  return ''.join(parts)


def links(text: str) -> list[str]:
  """Targets of the links and pictures of a Markdown text."""
  found: list[str] = []

  def note(part: str) -> str:
    found.extend(m[3] for m in _LINK.finditer(part) if not m['code'])
    return part

  prose(text, note)
  return found


class _Copy:
  """Copies files of the repository, and the files they link to."""

  def __init__(self, root: pathlib.Path, out: pathlib.Path):
    self._root, self._out = root.resolve(), out
    self._put: set[pathlib.Path] = set()

  def put(self, path: pathlib.Path) -> pathlib.Path:
    """Path of the copy of a file, after copying it and its links."""
    path = path.resolve()
    goes = self._goes(path)
    if path in self._put:
      return goes
    self._put.add(path)
    goes.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.md':
      text = prose(path.read_text(), lambda part: self._relink(path, part))
      goes.write_text(outside_code(text, _math))
    elif goes.suffix == '.md':
      language = _LANGUAGES[path.suffix]
      name = path.relative_to(self._root)
      goes.write_text(f'# `{name}`\n\n```{language}\n{path.read_text()}```\n')
    else:
      shutil.copyfile(path, goes)
    return goes

  def _goes(self, path: pathlib.Path) -> pathlib.Path:
    docs = self._root / 'docs'
    if path.is_relative_to(docs):
      return self._out / path.relative_to(docs)
    name = path.relative_to(self._root)
    if path.suffix == '.ipynb':
      return self._out / 'notebooks' / f'{path.stem}.md'
    if path.suffix in _LANGUAGES:
      name = name.with_name(name.name + '.md')
    return self._out / SOURCES / name

  def _relink(self, path: pathlib.Path, part: str) -> str:
    def changed(match: re.Match[str]) -> str:
      target, hash_, anchor = (match[3] or '').partition('#')
      if match['code'] or not target or re.match(r'\w+:', target):
        return match[0]
      file = (path.parent / target).resolve()
      if not file.is_file():
        name = path.relative_to(self._root)
        raise ValueError(f'{name}: {match[3]}: there is no such file')
      goes = self._goes(file)
      if file.suffix != '.ipynb':
        self.put(file)
      relative = os.path.relpath(goes, self._goes(path).parent)
      link = pathlib.PurePath(relative).as_posix()
      return f'{match[2]}{link}{hash_}{anchor}{match[4]}'

    return _LINK.sub(changed, part)


def _math(text: str) -> str:
  text = _BLOCK_MATH.sub(lambda m: _mathml(m[1], 'block'), text)
  return _MATH.sub(lambda m: _mathml(m[1], 'inline'), text)


def _mathml(latex: str, display: str) -> str:
  found = converter.convert(' '.join(latex.split()), display=display)
  # Markdown must not interpret *, _ and | of a formula, nor treat one at the
  # start of a line as a block.
  found = re.sub(r'[*_|]', lambda m: f'&#{ord(m[0])};', found)
  return found if display == 'block' else f'<span>{found}</span>'
