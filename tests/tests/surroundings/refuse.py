"""refuse.py ERRNO NUMBER,... PROGRAM [ARG...]: runs PROGRAM with no_new_privs and a seccomp filter that
refuses these system calls with ERRNO. If ERRNO is `kill`, the filter kills the process. It calls
prctl(2) directly, because a bare Debian has no program for that."""
import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x80000000, 0x00050000, 0x7FFF0000

errno, numbers, command = sys.argv[1], sys.argv[2].split(","), sys.argv[3:]
refusal = SECCOMP_RET_KILL_PROCESS if errno == "kill" else SECCOMP_RET_ERRNO | int(errno)
# The first word of the filter's input is the number of the call. All calls are of the native architecture.
program = [(LOAD, 0, 0, 0)]
for number in numbers:
    program += [(JUMP_IF_EQUAL, 0, 1, int(number)), (RETURN, 0, 0, refusal)]
program.append((RETURN, 0, 0, SECCOMP_RET_ALLOW))
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
    PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0
):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(command[0], command)
