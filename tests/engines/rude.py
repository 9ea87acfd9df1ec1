"""An engine that says hello as it should, then writes what the file RUDE holds, and stays."""

import os
import sys
import time
from pathlib import Path

sys.stdout.buffer.write(b'{"beat": 0}\n' + Path(os.environ["RUDE"]).read_bytes())
sys.stdout.flush()
time.sleep(60)
