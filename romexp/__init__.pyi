# What type checkers and editors see of `import romexp`, whose names are imported when they are first used.
from romexp.api.datasets import dataset as dataset
from romexp.api.edits import edit as edit
from romexp.api.edits import load_edit as load_edit
from romexp.api.evaluations import evaluate as evaluate
from romexp.api.methods import editor as editor
from romexp.api.models import load as load
from romexp.api.traces import trace as trace

__version__: str
