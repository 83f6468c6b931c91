"""Programs that the documentation's blocks call, as stand-ins that hand each call to this process and wait for it.

`advbn-gen` runs for real, at a reduced size, in a process forked from one that has imported everything. So do Dask's
programs, and the Python modules of docs/. What installs, builds or measures is not run here: it is looked whether what
is called is there. Other tests run it (`tests/test_packaging.py`, `tests/test_benchmarks.py`, `tests/test_recipes.py`).
"""

import importlib
import importlib.util
import json
import re
import socketserver
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import click
from torch.distributed.run import get_args_parser

from tests.cluster import free_port
from tests.pages.reduced import reduced
from tests.processes import ROOT, Forked, finish, kill_session
from tests.test_recipes import parse

_STAND_IN = """#!{python} -SE
import json, os, socket, sys
call = {{"words": [os.path.basename(sys.argv[0]), *sys.argv[1:]], "folder": os.getcwd(), "env": dict(os.environ)}}
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    server.sendall(json.dumps(call).encode() + b"\\n")
    done = json.loads(server.makefile().readline())
sys.stdout.write(done["out"])
sys.stderr.write(done["err"])
sys.exit(done["code"])
"""
LONG = ("demo", "sample-data")
"""Commands that have no smaller size; `tests/commands/test_demo.py` and `tests/sources/drawn` run them."""
HEAD = "tcp://head:8786"
"""Address of the pages' scheduler."""


@dataclass(frozen=True)
class Called:
    """A program that has been called, and what it did."""

    words: list[str]
    code: int
    out: str = ""
    err: str = ""
    seconds: float = 0.0


@dataclass
class Programs(AbstractContextManager["Programs"]):
    """The stand-ins in `folder`, served as long as the context is open."""

    folder: Path
    shared: Path
    """Folder that pages call `/shared`."""
    full: bool = False
    """Whether fine-tuned networks have their full width."""
    called: list[Called] = field(default_factory=list)
    """All calls so far, in the order of their ends."""

    def __enter__(self) -> "Programs":
        self.folder.mkdir()
        address, python = str(self.folder / "calls"), sys.executable
        for name in _RUN:
            path = self.folder / name
            path.write_text(_STAND_IN.format(python=python, address=address), encoding="utf-8")
            path.chmod(0o755)
        self._head = f"tcp://127.0.0.1:{free_port()}"
        self._started: list[Forked] = []
        programs = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                done = programs._call(**json.loads(self.rfile.readline()))
                answer = {"code": done.code, "out": done.out, "err": done.err}
                self.wfile.write(json.dumps(answer).encode() + b"\n")

        self._server = socketserver.ThreadingUnixStreamServer(address, Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        ended = [process.returncode for process in self._started if process.poll() is not None]
        for process in reversed(self._started):
            kill_session(process)
            process.wait()
        assert not ended, f"programs of Dask ended by themselves: {ended}"

    def _call(self, words: list[str], folder: str, env: Mapping[str, str]) -> Called:
        begin = time.monotonic()
        words = [re.sub("^/shared/", f"{self.shared}/", word).replace(HEAD, self._head) for word in words]
        try:
            code, out, err = _RUN[words[0]](self, words[1:], Path(folder), env)
        except Exception as error:
            code, out, err = 99, "", repr(error)
        done = Called(words, code, out, err, time.monotonic() - begin)
        self.called.append(done)
        return done

    def advbn_gen(self, words: list[str], folder: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
        """Run the program itself; parse what takes minutes at any size."""
        if words[0] in LONG:
            parse(words)
            return 0, "", ""
        code, out, err = finish(Forked("cli", reduced(words, full=self.full), folder=folder, env=env))
        # A network that has hardly been trained does not pass all of its checks.
        checked = code == 1 and words[:2] == ["abnn", "sanity"] and "Failed: " in err
        return 0 if checked else code, out, err

    def python(self, words: list[str], folder: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
        """Run a module of docs/; parse the command of a benchmark; make an environment of stand-ins."""
        assert words[0] == "-m"
        module, *more = words[1:]
        if module == "venv":
            (folder / more[0]).mkdir()
            (folder / more[0] / "bin").symlink_to(self.folder)
            return 0, "", ""
        if module.startswith("docs."):
            return finish(Forked(module, more, folder=folder, env=env))
        command = getattr(importlib.import_module(module), "main", None)
        if module.startswith("benchmarks."):
            assert isinstance(command, click.Command)
            command.make_context(module, more)
        elif module != "tests.pages":
            assert module == "pytest"
            assert all((ROOT / word).exists() for word in more if "/" in word)
        return 0, "", ""

    def dask(self, words: list[str], folder: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
        """Start one of Dask's programs, and leave it running."""
        if words[0] == "scheduler":
            assert words[1:] == ["--port", HEAD.rpartition(":")[2]]
            words = ["scheduler", "--host", self._head, "--no-dashboard"]
        log = folder / f"dask-{len(self._started)}.log"
        with log.open("wb") as file:
            more = ["--no-dashboard", "--no-nanny"] if words[0] == "worker" else []
            self._started.append(Forked("dask", [*words, *more], folder=folder, output=file.fileno(), env=env))
        return 0, "", ""

    def torchrun(self, words: list[str], folder: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
        """Start two processes instead of a server's; parse what is given on several machines."""
        arguments = get_args_parser().parse_args(words)
        if not arguments.standalone:
            return 0, "", ""
        words = ["--standalone", "--nproc-per-node", "2", arguments.training_script, *arguments.training_script_args]
        return finish(Forked("torch.distributed.run", words, folder=folder, env=env))

    def make(self, words: list[str], folder: Path, env: Mapping[str, str]) -> tuple[int, str, str]:  # noqa: ARG002
        """Look for a target of the Makefile."""
        (target,) = words
        found = re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return int(found is None), "", "" if found else f"no target {target}"

    def pip(self, words: list[str], folder: Path, env: Mapping[str, str]) -> tuple[int, str, str]:  # noqa: ARG002
        """Look for the extra of a package that is installed."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        command, what = words
        found = re.fullmatch(r"advbn-gen\[(\w+)\]|\.", what)
        known = found is not None and (found[1] is None or found[1] in project["optional-dependencies"])
        return int(command != "install" or not known), "", "" if known else f"nothing to install: {what}"

    def bash(self, words: list[str], folder: Path, env: Mapping[str, str]) -> tuple[int, str, str]:  # noqa: ARG002
        """Look for a recipe."""
        found = (ROOT / words[0]).is_file()
        return int(not found), "", "" if found else f"no recipe {words[0]}"


_Run = Callable[[Programs, list[str], Path, Mapping[str, str]], tuple[int, str, str]]
_RUN: Mapping[str, _Run] = {
    "advbn-gen": Programs.advbn_gen, "python": Programs.python, "python3": Programs.python, "dask": Programs.dask,
    "make": Programs.make, "pip": Programs.pip, "bash": Programs.bash, "torchrun": Programs.torchrun,
}  # fmt: skip
