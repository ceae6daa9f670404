"""The model: the files `*_ernie_rna.py`, which are also what a folder on the Hub holds.

They stand at the root of the repository, since that is laid out as a Hub repository, and in this
package of a wheel. They import torch, transformers and one another, nothing else of this library.
"""

from pathlib import Path

if not Path(__file__).with_name("modeling_ernie_rna.py").is_file():  # a checkout
    __path__ = [str(Path(__file__).parents[2])]
