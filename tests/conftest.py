"""Set before torch and numba load: their idle threads must not spin against each other."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
