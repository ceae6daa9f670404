"""`ernie-rna finetune`, from a checkout: python scripts/finetune.py --help."""

import sys

from ernie_rna.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["finetune", *sys.argv[1:]]))
