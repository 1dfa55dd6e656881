"""The tests that failed, once more and one by one.

Most tests here kill, stop and time out real processes, two at a time on a machine that may be busy with other things.
A failure that does not come again alone is a fault of the test, or of the program, that is rare: it is named, loudly,
so that somebody mends it, and does not hold up a change that has nothing to do with it. More than a few failures, or
any that comes again, are what they are everywhere.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

FAILED: Final = Path(".pytest_cache/v/cache/lastfailed")
FAILURES_MAX: Final = 3


def main() -> int:
    """Run them; 0 when all pass alone."""
    failed = sorted(json.loads(FAILED.read_text())) if FAILED.exists() else []
    if not failed or len(failed) > FAILURES_MAX:
        print(f"{len(failed)} tests failed: not looked at again", file=sys.stderr)
        return 1
    for test in failed:
        if subprocess.run([sys.executable, "-m", "pytest", test], check=False).returncode:
            return 1
    for test in failed:
        print(f"UNSTEADY: {test} failed beside others and passed alone: mend it", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
