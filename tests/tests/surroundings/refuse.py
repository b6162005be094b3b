"""refuse.py ERRNO NUMBER,... PROGRAM [ARG...]: runs it with a seccomp filter that refuses these
system calls with this errno, and with no_new_privs. By prctl(2) itself, as nothing that comes with
a bare Debian does it."""
import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x00050000, 0x7FFF0000

errno, numbers, command = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:]
# The number is the first word of what the filter sees. All calls are this machine's own.
program = [(LOAD, 0, 0, 0)]
for number in numbers:
    program += [(JUMP_IF_EQUAL, 0, 1, int(number)), (RETURN, 0, 0, SECCOMP_RET_ERRNO | errno)]
program.append((RETURN, 0, 0, SECCOMP_RET_ALLOW))
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
    PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0
):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(command[0], command)
