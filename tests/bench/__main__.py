"""`python -m tests.bench [name ...]`: all benchmarks, or those named."""

import shutil
import sys
import tempfile
from pathlib import Path

from tests.bench import append, delivery, first_event, model_stream, reowning, seal, start

BENCHMARKS = {
    "start": start.main,
    "first-event": first_event.main,
    "delivery": delivery.main,
    "append": append.main,
    "model-stream": model_stream.main,
    "seal": seal.main,
    "reowning": reowning.main,
}


def main(names: list[str]) -> int:
    if unknown := set(names) - set(BENCHMARKS):
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="runwire-bench-"))
    folder.chmod(0o755)  # as root the servers run as another user, who must be able to enter
    try:
        for name in names or BENCHMARKS:
            BENCHMARKS[name](folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
