"""`ernie-rna convert`, from a checkout: python scripts/convert_fairseq_checkpoint.py --help."""

import sys

from ernie_rna.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
