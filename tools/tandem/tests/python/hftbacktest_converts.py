"""Makes an array of Tardis' CSV with hftbacktest's own converter.

    hftbacktest_converts.py OUT.npz CSV…
"""

import contextlib
import sys

from hftbacktest.data.utils import tardis

with contextlib.redirect_stdout(sys.stderr):
    tardis.convert(
        sys.argv[2:], output_filename=sys.argv[1], buffer_size=4_000_000, ss_buffer_size=100_000
    )
