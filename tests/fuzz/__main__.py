"""Fuzz with a million inputs: ``python -m tests.fuzz``. One target: ``python -m tests.fuzz decoder --inputs 100000``.

Each target runs in a process of its own, under atheris (libFuzzer). The numeric core is interpreted there, not
compiled: so an index beyond an array is an error instead of a look at foreign memory. An input that fails is left in
``out/fuzz``; ``python -m tests.fuzz TARGET --replay FILE`` shows its traceback.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OUT = Path("out/fuzz")
MAX_LENGTH = 4096
TARGETS = ("decoder", "schema", "bundle", "state", "alert")


def main() -> None:
    """Run all targets, or those given; end with 1 if one failed."""
    options = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").split(":")[0])
    options.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all unless given")
    options.add_argument("--inputs", type=int, default=1_000_000, help="number of inputs, over all targets given")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--replay", type=Path, help="run one input that was found")
    options.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if unknown := set(given.targets) - set(TARGETS):
        options.error(f"no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    names = given.targets or TARGETS
    if given.inside:
        fuzz(names[0], given.inputs, given.seed, given.replay)
        return
    from tests.fuzz.targets import TARGETS as SHARES

    whole, failed = sum(SHARES[name].share for name in names), []
    for name in names:
        inputs = round(given.inputs * SHARES[name].share / whole)
        arguments = ["--inputs", str(inputs), "--seed", str(given.seed)]
        arguments += ["--replay", str(given.replay.resolve())] if given.replay else []
        started_s = time.monotonic()
        command = [sys.executable, "-m", "tests.fuzz", name, "--inside", *arguments]
        status = subprocess.run(command, env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, check=False).returncode
        seconds = time.monotonic() - started_s
        print(f"{name}: {inputs} inputs in {seconds:.0f} s: {'failed' if status else 'no crash'}", flush=True)
        failed += [name] if status else []
    sys.exit(1 if failed else 0)


def fuzz(name: str, inputs: int, seed: int, replay: Path | None) -> None:
    """Fuzz one target in this process; does not return."""
    import atheris

    quiet = os.dup(2)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a line for each module that is instrumented
        os.dup2(nowhere.fileno(), 2)
        with atheris.instrument_imports(include=["streamlstm", "tomllib"]):
            from tests.fuzz.targets import TARGETS as FOUND
    os.dup2(quiet, 2)
    import warnings

    warnings.simplefilter("ignore")  # overflows of hostile numbers, which compiled code does not mention
    target = FOUND[name]
    if replay:
        target.check(replay.read_bytes())
        return
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, content in enumerate(target.seeds):
            (Path(corpus) / str(number)).write_bytes(content)
        options = [f"-runs={inputs}", f"-seed={seed}", f"-max_len={MAX_LENGTH}", f"-artifact_prefix={OUT}/{name}-"]
        options += ["-timeout=20", "-rss_limit_mb=4096", "-print_final_stats=1", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *options, corpus], target.check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
