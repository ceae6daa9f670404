"""`ernie-rna export-pretrained`, from a checkout: python scripts/export_pretrained.py --help."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ernie_rna.cli import main as cli


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main(["export-pretrained", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
