"""The garbage collector leaves what lives as long as the process alone."""

import subprocess
import sys

SAY = (
    "import gc, eventstore.pauses as p; p.keep_pauses_short(); print(gc.get_freeze_count() > 1000, gc.get_threshold())"
)


def test_what_is_loaded_is_not_looked_at_again() -> None:
    said = subprocess.run([sys.executable, "-c", SAY], capture_output=True, text=True, check=True).stdout
    assert said == "True (5000, 10, 20)\n"
