"""The sandbox's side of `sandbox`: give everything away, then become the program. Not to be imported.

It is run as a file by `python -I -S`, knows nothing of the portal, and ends with `REFUSED` when the kernel
does not give what it needs: a program that reads a stranger's file never runs with less. Landlock takes the
file system, seccomp the network and what changes other files or processes, limits the rest; capabilities go
with the bounding set. All of it works for root and for anybody else, and needs no namespace.

Linux: landlock(7), seccomp(2); the numbers are those of the kernel's headers.
"""

import ctypes
import json
import os
import platform
import resource
import signal
import struct
import sys

REFUSED = 97
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 1, 24, 38, 22
SECCOMP_MODE_FILTER, SIGKILL, EPERM = 2, 9, 1
#: To read a file that another of the portal's users wrote; all that root keeps.
CAP_DAC_READ_SEARCH = 2
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT, PATH_BENEATH = 444, 445, 446, 1
EXECUTE, WRITE_FILE, READ_FILE, TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 14
#: By version of the interface, the rights on files that it knows.
KNOWN_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
#: By machine: how the kernel calls it, and the calls that are refused: sockets, other processes, other files'
#: owners, modes, lengths and marks, and what changes the machine.
CALLS = {
    "x86_64": (
        0xC000003E,
        (41, 42, 53, 62, 76, 90, 91, 92, 93, 94, 101, 155, 165, 166, 188, 189, 190, 200, 234, 260, 268, 272,
         280, 308, 310, 311, 425, 426, 427, 434, 438, 452, 463),
    ),
    "aarch64": (
        0xC00000B7,
        (5, 6, 7, 39, 40, 41, 45, 52, 53, 54, 55, 88, 97, 117, 129, 130, 131, 198, 199, 203, 268, 270, 271,
         425, 426, 427, 434, 438, 452, 463),
    ),
}
_libc = ctypes.CDLL(None, use_errno=True)


def _must(result: int, what: str) -> int:
    if result < 0:
        print(f"{what}: {os.strerror(ctypes.get_errno())}", file=sys.stderr, flush=True)
        os._exit(REFUSED)
    return result


def _prctl(option: int, value: int, more: object = 0) -> int:
    return int(_libc.prctl(option, ctypes.c_ulong(value), more, ctypes.c_ulong(0), ctypes.c_ulong(0)))


def _limit(limits: "dict[str, int]") -> None:
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def _drop_capabilities() -> None:
    if os.geteuid() == 0:
        for number in range(64):
            if number != CAP_DAC_READ_SEARCH:
                _prctl(PR_CAPBSET_DROP, number)  # beyond the last one, or dropped already, is no matter


def _restrict_files(rules: "list[tuple[str, int]]") -> None:
    version = _must(_libc.syscall(LANDLOCK_CREATE, None, 0, 1), "landlock")
    handled = KNOWN_RIGHTS[max(known for known in KNOWN_RIGHTS if known <= version)]
    wanted = struct.pack("Q", handled)
    ruleset = _must(_libc.syscall(LANDLOCK_CREATE, wanted, len(wanted), 0), "landlock_create_ruleset")
    for path, rights in rules:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        rule = struct.pack("=Qi", rights & handled, place)
        _must(_libc.syscall(LANDLOCK_ADD, ruleset, PATH_BENEATH, rule, 0), "landlock_add_rule")
        os.close(place)
    _must(_libc.syscall(LANDLOCK_RESTRICT, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def _restrict_calls() -> None:
    if platform.machine() not in CALLS:
        _must(-1, f"no list of calls for {platform.machine()}")
    arch, refused = CALLS[platform.machine()]
    load, equal, above, answer = 0x20, 0x15, 0x35, 0x06
    kill, refuse, allow = 0x80000000, 0x00050000 | EPERM, 0x7FFF0000
    program = [(load, 0, 0, 4), (equal, 1, 0, arch), (answer, 0, 0, kill), (load, 0, 0, 0)]
    # The other table of an x86 kernel (x32), by which calls have other numbers.
    program += [(above, 0, 1, 0x40000000), (answer, 0, 0, kill)]
    for number in refused:
        program += [(equal, 0, 1, number), (answer, 0, 0, refuse)]
    program.append((answer, 0, 0, allow))
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    kept = ctypes.create_string_buffer(code, len(code))
    filters = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(kept)))
    _must(_prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filters)), "seccomp")


def main() -> None:
    """Become the program of the specification in argv[1], or end with REFUSED."""
    wanted = json.loads(sys.argv[1])
    _prctl(PR_SET_PDEATHSIG, SIGKILL)
    if os.getppid() != wanted["parent"]:
        os._exit(REFUSED)
    program = wanted["argv"][0]
    loader = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}
    rules = [(program, EXECUTE | READ_FILE), (loader.get(platform.machine(), program), EXECUTE | READ_FILE)]
    rules += [(path, READ_FILE) for path in ("/usr/lib", "/lib", "/lib64", "/etc/ld.so.cache")]
    rules.append(("/dev/null", READ_FILE | WRITE_FILE))
    rules += [(path, READ_FILE) for path in wanted["reads"]]
    rules += [(path, READ_FILE | WRITE_FILE | TRUNCATE) for path in wanted["writes"]]
    _drop_capabilities()
    _must(_prctl(PR_SET_NO_NEW_PRIVS, 1), "no_new_privs")
    _restrict_files(rules)
    _restrict_calls()
    _limit(wanted["limits"])
    # Python ignores both, and who it becomes would too.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execv(program, wanted["argv"])  # noqa: S606 this is what it is for


if __name__ == "__main__":
    main()
