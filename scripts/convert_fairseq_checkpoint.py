"""`ernie-rna convert`, from a checkout: python -m scripts.convert_fairseq_checkpoint --help."""

import sys

from ernie_rna.cli import main as cli


def main(argv: list[str] | None = None) -> int:
    return cli.main(["convert", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
