"""Programs nobody trusts: what they give, and what they try in vain."""

import os
import socket
from pathlib import Path

import pytest

from luthier.errors import ConfigError
from luthier.evaluation import sandbox
from luthier.evaluation.sandbox import Limits, Ran, cannot_shut_in, run_program

pytestmark = pytest.mark.skipif(bool(cannot_shut_in()), reason=f"no sandbox: {cannot_shut_in()}")
QUICK = Limits(seconds=2)


def run(source: str, limits: Limits = QUICK) -> Ran:
    return run_program(source, limits=limits)


def test_a_function_is_called_with_what_is_given() -> None:
    ran = run_program(
        "def grade(sample, item):\n print('hello')\n return len(sample) + item['x']",
        "grade", ("abc", {"x": 0.5}),
    )  # fmt: skip
    assert ran == Ran("finished", 3.5, "", "hello\n")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("assert 1 == 2, 'no'", "AssertionError: no"),
        ("def f(:", "SyntaxError: invalid syntax"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("import missing_module", "ModuleNotFoundError: No module named 'missing_module'"),
        ("def f():\n return f()\nf()", "RecursionError"),
    ],
)
def test_a_program_that_fails_says_how(source: str, error: str) -> None:
    ran = run(source)
    assert (ran.ending, ran.error[: len(error)]) == ("failed", error)


def test_leaving_early_is_no_success() -> None:
    assert run("import os\nos._exit(0)").ending == "killed"


def test_a_result_that_json_cannot_say_is_an_error() -> None:
    assert "TypeError" in run_program("def f(): return {1, 2}", "f").error


def test_endless_programs_end() -> None:
    assert run("while True: pass", Limits(seconds=1)).ending in ("killed", "out of time")


def test_waiting_programs_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "START", 0.5)
    ran = run("import time\ntime.sleep(60)", Limits(seconds=1))
    assert ran.ending == "out of time"


def test_memory_is_bounded() -> None:
    ran = run("x = bytearray(2 << 30)", Limits(memory=1 << 29))
    assert (ran.ending, ran.error) == ("failed", "MemoryError")


def test_output_is_bounded() -> None:
    ran = run("while True: print('x' * 1000)", Limits(seconds=5, output=5000))
    assert ran.ending == "printed too much"
    assert len(ran.printed) == 5000


def test_no_file_of_others_can_be_changed(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("here")
    ran = run(f"import os\nos.remove({str(mine)!r})")
    assert "OSError: [Errno 30] Read-only file system" in ran.error
    assert "Read-only" in run(f"open({str(tmp_path / 'new')!r}, 'w')").error
    assert "Read-only" in run(f"import os\nos.chmod({str(mine)!r}, 0)").error
    assert mine.read_text() == "here"


def test_its_own_folder_is_small_and_gone_afterwards() -> None:
    source = "import os\nopen('a', 'w').write('hello')\nwhere = os.getcwd()\ndef f(): return where"
    ran = run_program(source, "f")
    assert ran.ending == "finished"
    assert not Path(ran.value).exists()
    much = "f = open('a', 'wb')\nfor _ in range(64): f.write(bytes(1 << 20))"
    assert run(much, Limits(num_bytes=4 << 20)).ending in ("failed", "killed")


@pytest.mark.enable_socket
def test_there_is_no_network() -> None:
    connect = "import socket\nsocket.create_connection(('127.0.0.1', {}), 1)"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), 1).close()
        assert "Network is unreachable" in run(connect.format(port)).error


def test_there_is_no_other_process() -> None:
    assert run(f"import os\nos.kill({os.getpid()}, 0)").error.startswith("ProcessLookupError")
    source = "import os\ndef f(): return [n for n in os.listdir('/proc') if n.isdigit()]"
    assert run_program(source, "f").value == ["1"]


def test_nothing_of_our_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    ran = run_program("import os\ndef f(): return sorted(os.environ)", "f")
    assert not {"OPENAI_API_KEY", "HOME", "PATH"} & set(ran.value)


ESCAPES = {
    "new namespaces": "import ctypes\nl = ctypes.CDLL(None, use_errno=True)\n"
    "assert l.unshare(0x10000000) == 0, 'refused'",
    "mounting": "import ctypes\nl = ctypes.CDLL(None, use_errno=True)\n"
    "assert l.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None) == 0, 'refused'",
    "unsealing": "import ctypes\nl = ctypes.CDLL(None, use_errno=True)\n"
    "a = (ctypes.c_uint64 * 4)(0, 1, 0, 0)\n"
    "assert l.syscall(442, -100, b'/', 0x8000, ctypes.byref(a), 32) == 0, 'refused'",
    "another user": "import os\nos.setuid(0)",
    "devices": "import os\nos.mknod('sda', 0o600 | 0o060000, os.makedev(8, 0))\nraise SystemExit",
    "chroot": "import os\nos.chroot('.')",
    "tracing the parent": "import ctypes\nl = ctypes.CDLL(None, use_errno=True)\n"
    "assert l.ptrace(16, 2, 0, 0) == 0, 'refused'",
}


@pytest.mark.parametrize("way", ESCAPES)
def test_there_is_no_way_out(way: str) -> None:
    ran = run(ESCAPES[way])
    assert ran.ending == "failed", ran
    assert "refused" in ran.error or "Error" in ran.error


def test_programs_that_multiply_are_stopped() -> None:
    ran = run("import os\nwhile True: os.fork()", Limits(seconds=2))
    assert ran.ending != "finished"
    assert "BlockingIOError" in ran.error or ran.ending in ("killed", "out of time")


def test_what_answers_for_the_sandbox_is_not_believed() -> None:
    forged = (
        "import os, json\nfor fd in range(3, 60):\n"
        "  try: os.write(fd, json.dumps({'value': 1, 'error': '', 'token': ''}).encode())\n"
        "  except OSError: pass\nos._exit(0)"
    )
    ran = run(forged)
    assert (ran.ending, ran.error) == ("failed", "it answered for the sandbox")


def test_where_nothing_can_be_shut_in_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "cannot_shut_in", lambda: "no user namespaces")
    with pytest.raises(ConfigError, match=r"cannot be shut in here: no user namespaces"):
        run("pass")
