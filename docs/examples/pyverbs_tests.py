#!/usr/bin/python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""rdma-core's tests in Python as one program for --program (docs/programs.md).

    pyverbs_tests.py pack OUT TESTS MODULE...    TESTS is the folder of tests, MODULE one of them: test_device

writes a shell script that carries Python, all that these modules import, and this file. In the guest the script
unpacks that into its working folder and has this file run the tests, which tells their results as TAP. Arguments
of the script are those of the tests: --dev rxe0 --gid 1.
"""

import importlib
import importlib.util
import io
import os
import py_compile
import subprocess
import sys
import tarfile
import tempfile
import unittest

HEAD = """#!/bin/sh
busybox tail -c +{start:08} "$0" | busybox tar xz || exit 125
export LD_LIBRARY_PATH="lib:$LD_LIBRARY_PATH" PYTHONHOME=. PYTHONPATH=modules
exec ./python modules/pyverbs_tests.pyc run {modules} -- "$@"
"""


def libraries(program):
    """What a program loads, but for the loader, which every guest has."""
    listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    words = (word for line in listing.splitlines() for word in line.split())
    return {word for word in words if word.startswith("/") and "/ld-" not in word}


def imported():
    """The file of each module that is loaded now, by where it goes."""
    found = {"pyverbs_tests.py": os.path.abspath(__file__)}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is None or name == "__main__":
            continue
        parts = name.split(".")
        if not os.path.basename(file).startswith("__init__."):
            parts = parts[:-1]
        found["/".join([*parts, os.path.basename(file)])] = file
    return found


def pack(out, tests, *modules):
    """Writes the script."""
    # Not the package's own __init__, which imports every test that there is.
    package = importlib.util.module_from_spec(importlib.util.spec_from_loader("tests", None, is_package=True))
    package.__path__ = [tests]
    sys.modules["tests"] = package
    sys.path.insert(0, tests)
    for module in modules:
        importlib.import_module(f"tests.{module}")
    files = {"python": os.path.realpath(sys.executable)}
    native = libraries(files["python"])
    with tempfile.TemporaryDirectory() as scratch:
        for name, file in imported().items():
            if file.endswith(".py"):
                # Compiling would take an emulated processor longer than the tests do.
                compiled = os.path.join(scratch, str(len(files)))
                py_compile.compile(file, compiled, dfile=name, doraise=True)
                name, file = f"{name}c", compiled
            else:
                native |= libraries(file)
            files[f"modules/{name}"] = file
        files |= {f"lib/{os.path.basename(library)}": library for library in native}
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            for name, file in sorted(files.items()):
                tar.add(os.path.realpath(file), name)
    names = " ".join(modules)
    start = len(HEAD.format(start=0, modules=names)) + 1
    with open(out, "wb") as script:
        script.write(HEAD.format(start=start, modules=names).encode() + archive.getvalue())
    os.chmod(out, 0o755)
    print(f"{out}: {len(files)} files in {os.path.getsize(out)} bytes")


class Tap(unittest.TestResult):
    """Tells each result when it is there."""

    def tell(self, how, test, more="", why=""):
        print(f"{how} {self.testsRun} - {test.id()}{more}")
        for line in why.rstrip().splitlines():
            print(f"# {line}")
        sys.stdout.flush()

    def addSuccess(self, test):
        self.tell("ok", test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.tell("not ok", test, why=self.failures[-1][1])

    def addError(self, test, err):
        super().addError(test, err)
        self.tell("not ok", test, why=self.errors[-1][1])

    def addSkip(self, test, reason):
        self.tell("ok", test, f" # SKIP {reason}")


def run(*arguments):
    """Runs the tests of these modules; what follows `--` is theirs."""
    end = arguments.index("--")
    sys.argv = ["tests", *arguments[end + 1 :]]
    from args_parser import parser

    parser.parse_args()
    suite = unittest.defaultTestLoader.loadTestsFromNames([f"tests.{name}" for name in arguments[:end]])
    print(f"TAP version 13\n1..{suite.countTestCases()}", flush=True)
    result = Tap()
    suite.run(result)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    what = {"pack": pack, "run": run}.get(sys.argv[1] if len(sys.argv) > 1 else "")
    sys.exit(what(*sys.argv[2:]) if what else __doc__)
