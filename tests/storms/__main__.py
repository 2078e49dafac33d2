"""``python -m tests.storms [--minutes 10] [--seed N] [group ...]``: a storm over each group of servers."""

import argparse
import logging
import secrets
import sys

from tests.storms.groups import GROUPS
from tests.storms.storm import storm

#: Unexplained answers that are printed.
SHOWN = 20


def main() -> int:
    """Let storms break; return 1 if an answer is not explained."""
    parser = argparse.ArgumentParser(prog="python -m tests.storms", description=__doc__)
    parser.add_argument("groups", nargs="*", help=f"of {', '.join(GROUPS)}; all by default")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each group")
    parser.add_argument("--seed", type=int, default=None, help="of the faults and the load")
    given = parser.parse_args()
    logging.getLogger("storeroom").addHandler(logging.NullHandler())  # outages are what this is about
    seed = secrets.randbelow(2**32) if given.seed is None else given.seed
    print(f"seed {seed}")
    wrong: list[str] = []
    for kind in given.groups or GROUPS:
        print(f"{kind}:")
        history = storm(kind, 60 * given.minutes, seed)
        found = history.unexplained()
        acknowledged = sum(write.is_acknowledged for write in history.writes)
        print(
            f"{kind}: {len(history.faults)} faults; {acknowledged} of {len(history.writes)} writes acknowledged, "
            f"{len(history.reads)} reads; {len(found)} answers not explained"
        )
        wrong += found
    print(*wrong[:SHOWN], sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
