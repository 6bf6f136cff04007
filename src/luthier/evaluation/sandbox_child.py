"""Runs in an interpreter of its own: shuts itself in, then runs a program that nobody trusts.

Started by `sandbox` as a script; imports nothing but the standard library. New namespaces (user,
mount, network, process, IPC, host name) leave the program no network, no other process and a file
system that can only be read, but for a small folder in memory; no capability is kept, and no new
namespace can be made. Then come limits of the system on time, memory, files and processes.

Standard input holds one JSON object; what came of it is written to the file descriptor in argv[1].
"""

import ctypes
import json
import os
import resource
import signal
import sys
import traceback
from typing import Any

NEW_MOUNTS, NEW_HOST, NEW_IPC = 0x20000, 0x4000000, 0x8000000
NEW_USER, NEW_PROCESSES, NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
SET_MOUNT = 442  # mount_setattr has the same number everywhere
CAPABILITIES = {"x86_64": 126, "aarch64": 91}
"""Number of the system call capset."""
EVERYTHING_BELOW, READ_ONLY, PRIVATE, HERE = 0x8000, 1, 1 << 18, -100
DIE_WITH_PARENT, NO_NEW_PRIVILEGES, DROP_FROM_BOUND = 1, 38, 24
NO_DEVICES_NO_SUID = 2 | 4
NOBODY = 65534
PROCESSES = 16

LIBRARY = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "user")]


class _CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


def shut_in(folder: str, num_bytes: int) -> None:
    """Leave all that others share. Raises OSError where the system does not allow it."""
    user, group = os.getuid(), os.getgid()
    _call("unshare", NEW_USER | NEW_MOUNTS | NEW_NETWORK | NEW_IPC | NEW_HOST | NEW_PROCESSES)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{NOBODY} {user} 1")
    _write("/proc/self/gid_map", f"{NOBODY} {group} 1")
    if os.fork():  # the new process is the first of the new process namespace
        _, status = os.wait()
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    _call("prctl", DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    sealed = _MountAttributes(READ_ONLY, 0, PRIVATE, 0)
    _call("syscall", SET_MOUNT, HERE, b"/", EVERYTHING_BELOW, ctypes.byref(sealed),
          ctypes.sizeof(sealed))  # fmt: skip
    options = f"size={num_bytes},mode=700,uid={NOBODY},gid={NOBODY}".encode()
    _call("mount", b"tmpfs", folder.encode(), b"tmpfs", NO_DEVICES_NO_SUID, options)
    # What other processes are there, and with what arguments, is nobody's business.
    _call("mount", b"proc", b"/proc", b"proc", NO_DEVICES_NO_SUID, None)
    _write("/proc/sys/user/max_user_namespaces", "0")
    os.chdir(folder)
    _give_up_rights()


def _give_up_rights() -> None:
    for capability in range(64):
        LIBRARY.prctl(DROP_FROM_BOUND, capability, 0, 0, 0)  # fails behind the last one
    header = _CapabilityHeader(0x20080522, 0)
    none = (ctypes.c_uint32 * 6)()
    number = CAPABILITIES[os.uname().machine]
    _call("syscall", number, ctypes.byref(header), ctypes.byref(none))
    _call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def limit(seconds: int, memory: int, num_bytes: int) -> None:
    """What the system grants from here on."""
    for what, most in (
        (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, num_bytes), (resource.RLIMIT_NPROC, PROCESSES),
        (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_CORE, 0),
    ):  # fmt: skip
        resource.setrlimit(what, (most, most))


def run(source: str, call: str | None, arguments: list[Any]) -> dict[str, Any]:
    """What a program did: the value of one of its functions, or the error it ended with."""
    names: dict[str, Any] = {"__name__": "__program__"}
    try:
        exec(compile(source, "program", "exec"), names)  # noqa: S102 - shut in, its whole task
        value = names[call](*arguments) if call else None
        return {"value": json.loads(json.dumps(value)), "error": ""}
    except MemoryError:
        return {"value": None, "error": "MemoryError"}
    except BaseException as error:
        lines = traceback.format_exception_only(type(error), error)
        return {"value": None, "error": lines[-1].strip()[:2000] or type(error).__name__}


def _call(name: str, *arguments: Any) -> None:
    if getattr(LIBRARY, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:  # noqa: PTH123 - pathlib takes long to import
        file.write(text)


def main() -> None:
    """Read what to do, shut the door, do it, and say what came of it."""
    result = int(sys.argv[1])
    asked = json.load(sys.stdin)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the program need not read what was asked
    try:
        shut_in(asked["folder"], asked["num_bytes"])
        limit(asked["seconds"], asked["memory"], asked["num_bytes"])
    except (OSError, KeyError, ValueError) as error:
        _answer(result, {"refused": str(error)})
        os._exit(3)
    found = run(asked["source"], asked["call"], asked["arguments"])
    sys.stdout.flush()
    _answer(result, {**found, "token": asked["token"]})
    os._exit(0)


def _answer(result: int, found: dict[str, Any]) -> None:
    os.write(result, json.dumps(found).encode() + b"\n")


if __name__ == "__main__":
    main()
