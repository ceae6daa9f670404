"""What ships with the package besides code: a model and example RNAs."""

from pathlib import Path

# The one name of a model that is neither a folder nor a name on the Hub.
MINI = "mini"

_HERE = Path(__file__).parent
EXAMPLE_FILES = (
    *("rna.fasta", "rna.dbn", "README.md"),
    *("RNase-P.fasta", "RNase-P.dbn", "RNase-P.shape"),
)


def mini() -> Path:
    """The folder of `mini`, a small ERNIE-RNA that was trained on the RNA families of Rfam.

    It is not the authors' model; the folder's README.md says what it is. `from_pretrained` takes
    the folder, and so does every function of this package.

    Raises:
        FileNotFoundError: this installation lacks it.
    """
    folder = _HERE / MINI
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"the model {MINI!r} is not in this installation ({folder}): reinstall ernie-rna, "
            "or name another model, such as a folder that `ernie-rna convert` wrote"
        )
    return folder


def examples() -> Path:
    """The folder with `rna.fasta`, some real RNAs, and `rna.dbn`, their known structures.

    Raises:
        FileNotFoundError: this installation lacks it.
    """
    # Beside this file where it is installed, else at the root of the repository.
    for folder in (_HERE / "examples", _HERE.parent / "examples"):
        if all((folder / file).is_file() for file in EXAMPLE_FILES):
            return folder
    raise FileNotFoundError(
        f"the example RNAs are not in this installation ({_HERE}): reinstall ernie-rna"
    )
