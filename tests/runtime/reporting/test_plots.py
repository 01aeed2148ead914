from matplotlib import image

from dppo_jax.runtime.reporting import plots
from tests.support import runs


def test_a_figure_needs_no_display_and_has_its_size(tmp_path):
  figure = plots.make_figure(4.0, 3.0, 50)
  axis = figure.subplots()
  plots.dress(axis, 'Reward', 'train step', 'mean reward')
  figure.savefig(tmp_path / 'a.png')
  assert image.imread(tmp_path / 'a.png').shape[:2] == (150, 200)
  assert axis.get_title(loc='left') == 'Reward'
  assert (axis.get_xlabel(), axis.get_ylabel()) == ('train step', 'mean reward')
  assert not axis.spines['top'].get_visible()


def test_every_plot_of_the_package_has_this_style():
  # The summary, the ledger and the figures have one dress and one canvas.
  package = runs.ROOT / 'dppo_jax'
  drawing = [
    str(path.relative_to(package))
    for path in sorted(package.rglob('*.py'))
    if 'FigureCanvasAgg' in path.read_text()
  ]
  assert drawing == ['runtime/reporting/plots.py']
