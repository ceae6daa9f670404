"""The data in the package: a small model and example RNAs."""

from pathlib import Path

# The only model name that is neither a folder nor a repository on the Hub.
MINI = "mini"

_HERE = Path(__file__).parent
EXAMPLE_FILES = (
    *("rna.fasta", "rna.dbn", "README.md"),
    *("RNase-P.fasta", "RNase-P.dbn", "RNase-P.shape"),
)


def mini() -> Path:
    """The folder of `mini`, a small ERNIE-RNA that was trained on the RNA families of Rfam.

    It is not the authors' model; README.md in the folder describes it. `from_pretrained` and every
    function of this package that takes a model accept the folder.

    Raises:
        FileNotFoundError: this installation does not contain it.
    """
    folder = _HERE / MINI
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"the model {MINI!r} is not in this installation ({folder}): reinstall ernie-rna, "
            "or use another model, such as a folder that `ernie-rna convert` wrote"
        )
    return folder


def examples() -> Path:
    """The folder with `rna.fasta`, some real RNAs, and `rna.dbn`, their known structures.

    Raises:
        FileNotFoundError: this installation does not contain it.
    """
    # Beside this file in an installed package, at the root of the repository in a checkout.
    for folder in (_HERE / "examples", _HERE.parent / "examples"):
        if all((folder / file).is_file() for file in EXAMPLE_FILES):
            return folder
    raise FileNotFoundError(
        f"the example RNAs are not in this installation ({_HERE}): reinstall ernie-rna"
    )
