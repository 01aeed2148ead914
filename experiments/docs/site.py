"""Documentation site: pages assembled, built by Zensical, links checked.

`zensical build --strict` does not report missing pictures, pages that are not
in the navigation, and navigation entries without a page (0.0.73), so these are
checked here.
"""

from html.parser import HTMLParser
import pathlib
import shutil
import subprocess
import sys
from urllib.parse import unquote, urldefrag, urljoin

import yaml

from dppo_jax.experiments.docs import pages

_BASE = 'https://site.invalid/'


def build(root: pathlib.Path, sources: pathlib.Path, out: pathlib.Path) -> None:
  """Writes the site.

  Args:
    root: of the repository.
    sources: folder for the assembled pages; its content is removed.
    out: folder for the site; its content is removed.

  Raises:
    ValueError: the generator reported a problem, or navigation and pages
      differ.
  """
  pages.assemble(root, sources)
  text = (root / 'mkdocs.yml').read_text()
  config = yaml.safe_load(text)
  listed = set(_leaves(config['nav']))
  there = {
    str(path.relative_to(sources))
    for path in sources.rglob('*.md')
    if pages.SOURCES not in path.relative_to(sources).parts
  }
  if listed != there:
    raise ValueError(
      f'mkdocs.yml: nav: pages that are not there {sorted(listed - there)},'
      f' not listed {sorted(there - listed)}'
    )
  python = config['plugins'][-1]['mkdocstrings']['handlers']['python']
  python['paths'] = [str(root)]
  extensions = python['options']['extensions']
  python['options']['extensions'] = [str(root / path) for path in extensions]
  settings = sources.with_suffix('.yml')
  built = sources.with_name(f'{sources.name}-site')  # In the same folder.
  settings.write_text(
    yaml.safe_dump(
      config | {'docs_dir': sources.name, 'site_dir': built.name},
      sort_keys=False,
      allow_unicode=True,
    )
  )
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'zensical', 'build'),
      *('--strict', '--clean', '--config-file', str(settings)),
    ],
    capture_output=True,
    text=True,
    check=False,
    cwd=sources.parent,
  )
  if done.returncode:
    raise ValueError(f'zensical: {done.stdout}{done.stderr}')
  shutil.rmtree(out, ignore_errors=True)
  shutil.copytree(built, out)


def problems(out: pathlib.Path) -> list[str]:
  """Broken links and missing pictures of the site, one line each."""
  pages_of = {path: _Page.of(path) for path in sorted(out.rglob('*.html'))}
  found = []
  for path, page in pages_of.items():
    here = path.relative_to(out).as_posix()
    if here == '404.html':  # Its links are absolute, of a site at the root.
      continue
    for target in page.targets:
      link, anchor = urldefrag(urljoin(_BASE + here, target))
      if not link.startswith(_BASE):
        continue
      file = out / unquote(link[len(_BASE) :])
      if file.is_dir():
        file /= 'index.html'
      if not file.is_file():
        found.append(f'{here}: {target}: there is no such file')
      elif anchor and file in pages_of:
        if unquote(anchor) not in pages_of[file].anchors:
          found.append(f'{here}: {target}: there is no such anchor')
  return found


class _Page(HTMLParser):
  """Link targets and anchors of a page."""

  def __init__(self):
    super().__init__()
    self.targets: list[str] = []
    self.anchors: set[str] = set()

  @classmethod
  def of(cls, path: pathlib.Path) -> '_Page':
    """Reads a page."""
    page = cls()
    page.feed(path.read_text())
    return page

  def handle_starttag(
    self, tag: str, attrs: list[tuple[str, str | None]]
  ) -> None:
    """Records the link target and the anchor of a tag."""
    for name, value in attrs:
      if value is None:
        continue
      if name in ('href', 'src') and not value.startswith(('data:', 'mailto:')):
        self.targets.append(value)
      elif name == 'id' or (name == 'name' and tag == 'a'):
        self.anchors.add(value)


def _leaves(nav: list) -> list[str]:
  found = []
  for entry in nav:
    for value in entry.values() if isinstance(entry, dict) else [entry]:
      found += [value] if isinstance(value, str) else _leaves(value)
  return found
