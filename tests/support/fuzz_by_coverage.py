"""The inputs of ``fuzzing.py``, sought by coverage: atheris changes what hypothesis draws until other lines of ours are reached.

    pip install atheris        # Linux, Python 3.11 to 3.13
    python tests/support/fuzz_by_coverage.py --seconds 60

Every kind of input has a process of its own. A fault ends it with the input that shows it.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["reidassoc", "reidassoc_plugins"], enable_loader_override=False):
    import fuzzing


LENGTH, BEGINNINGS = 4096, 20  # of an input, in bytes; inputs to begin with


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="for each kind of input")
    parser.add_argument("--only", choices=fuzzing.TARGETS)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        check = fuzzing.checked(options.only, 1, Counter())
        seek = check.hypothesis.fuzz_one_input  # type: ignore[attr-defined]
        told = [f"-max_total_time={options.seconds}", f"-max_len={LENGTH}", "-len_control=0", "-print_final_stats=1"]
        with tempfile.TemporaryDirectory() as corpus:
            for seed in range(BEGINNINGS):  # bytes that hypothesis can draw a whole input from
                Path(corpus, str(seed)).write_bytes(random.Random(seed).randbytes(LENGTH))
            atheris.Setup([sys.argv[0], *told, corpus], seek)
            atheris.Fuzz()  # does not return
    total = 0
    for name in [options.only] if options.only else fuzzing.TARGETS:
        command = [sys.executable, __file__, "--here", "--only", name, "--seconds", str(options.seconds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        tried = re.search(r"number_of_executed_units: (\d+)", done.stdout)
        reached = re.findall(r"cov: (\d+)", done.stdout)
        if done.returncode or not tried or not reached:
            sys.exit(f"{name}: {done.stdout[-3000:]}")
        total += int(tried[1])
        print(f"| {name} | {tried[1]} inputs | {reached[0]} to {reached[-1]} branches reached |", flush=True)
    print(f"| all | {total} inputs | |")


if __name__ == "__main__":
    main()
