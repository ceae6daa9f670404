"""`python -m ernie_rna` is `ernie-rna`; torchrun and accelerate launch start it this way."""

import sys

from ernie_rna.cli.main import main

sys.exit(main())
