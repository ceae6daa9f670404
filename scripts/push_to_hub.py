"""`ernie-rna push`, from a checkout: python -m scripts.push_to_hub --help."""

import sys

from ernie_rna.cli import main as cli


def main(argv: list[str] | None = None) -> int:
    return cli.main(["push", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
