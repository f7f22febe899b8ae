"""`python -m gyoza.op module:function` runs an op; `--describe module:function` prints what its signature says."""

import sys

from gyoza.op.runner import main

sys.exit(main(sys.argv[1:]))
