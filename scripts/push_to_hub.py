"""`ernie-rna push`, from a checkout: python scripts/push_to_hub.py --help."""

import sys

from ernie_rna.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["push", *sys.argv[1:]]))
