"""Package metadata and extras; every tool is configured in pyproject.toml."""

import ast
import pathlib

import setuptools

_HERE = pathlib.Path(__file__).parent


def _version() -> str:
  """Reads `__version__` without importing the package."""
  tree = ast.parse((_HERE / 'dppo_jax' / '__init__.py').read_text())
  for node in tree.body:
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == (
      '__version__'
    ):
      return ast.literal_eval(node.value)
  raise ValueError('dppo_jax/__init__.py: no __version__ assigned.')


def _description() -> str:
  readme = _HERE / 'README.md'
  return readme.read_text() if readme.exists() else ''


# Lower bounds are the versions that constraints.txt pins and the tests run on;
# an upper bound stands where a project may break its interface.
_INSTALL_REQUIRES = [
  'absl-py>=2.5',
  'array-record>=0.8.3',
  'chex>=0.1.92,<0.2',
  'flax>=0.12.8,<0.14',
  # tensorflow-datasets imports it and does not declare it.
  'importlib_resources>=6.5',
  'jax>=0.10.2,<0.13',
  'jinja2>=3.1.6,<4',  # Chat templates.
  # math-verify's grammar, which is imported directly.
  'latex2sympy2-extended>=1.11,<1.12',
  'math-verify>=0.9,<0.10',
  'matplotlib>=3.10',
  'ml-collections>=1.1,<2',
  'numpy>=2.1',
  'optax>=0.2.8,<0.4',
  'orbax-checkpoint>=0.12.8,<0.14',
  'pyarrow>=26',  # Parquet.
  'scipy>=1.17',
  'sympy>=1.14,<2',
  'tensorflow-datasets>=4.9.10,<5',  # Used without TensorFlow.
  'tokenizers>=0.23.3,<0.24',
  'tqdm>=4.67,<5',
]

# The site of docs/; notebooks are executed by what is in _TEST.
_DOCS = [
  'ipykernel>=7',
  'latex2mathml>=3.81,<4',
  'mkdocstrings-python>=2.0.11,<3',
  'nbclient>=0.11,<0.12',
  'zensical==0.0.73',  # Before 1.0 any release may change the build.
]

# Task generators with scorers. No part of `test`: pycosat needs a C compiler.
_ENVIRONMENTS = ['reasoning-gym>=0.1.25,<0.2']

# Writers of metrics beside metrics.jsonl; TensorFlow is not needed.
_TENSORBOARD = ['tensorboardX>=2.6.5,<3']

# Models in GGUF files; brings pyyaml and requests.
_GGUF = ['gguf>=0.19,<0.20']

_TEST = [
  *_DOCS,
  *_GGUF,
  *_TENSORBOARD,
  'basedpyright>=1.40',
  'hypothesis>=6.150',
  'import-linter>=2.11,<3',
  'pytest>=9,<10',
  'pytest-rerunfailures>=16,<17',
  'pytest-xdist>=3.8,<4',
  'ruff>=0.17,<0.18',  # Its formatting changes with the minor version.
  'jupytext>=1.18,<2',  # Notebooks as text, for the linters.
]

setuptools.setup(
  name='dppo_jax',
  version=_version(),
  description=(
    'Divergence proximal policy optimization for language models in JAX.'
  ),
  long_description=_description(),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  python_requires='>=3.11,<3.14',
  packages=setuptools.find_packages(include=['dppo_jax', 'dppo_jax.*']),
  package_data={'dppo_jax.analysis.ledger': ['*.html']},
  entry_points={'console_scripts': ['dppo = dppo_jax.__main__:main']},
  install_requires=_INSTALL_REQUIRES,
  extras_require={
    'test': _TEST,
    'docs': _DOCS,
    'gguf': _GGUF,
    'environments': _ENVIRONMENTS,
    'tensorboard': _TENSORBOARD,
    'wandb': ['wandb>=0.31,<0.32'],
    'gpu': ['jax[cuda12]'],  # NVIDIA driver 525 or later.
    'gpu_cuda13': ['jax[cuda13]'],  # NVIDIA driver 580 or later.
    # CUDA's compiler alone, a sixth of a gigabyte: plans for GPUs anywhere.
    'gpu_plan': ['jax-cuda12-plugin>=0.10.2,<0.13'],
    'tpu': ['jax[tpu]'],  # With the libtpu of its age; compiles anywhere.
  },
  classifiers=[
    'Programming Language :: Python :: 3.11',
    'Programming Language :: Python :: 3.12',
    'Programming Language :: Python :: 3.13',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
  ],
)
