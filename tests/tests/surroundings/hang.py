"""hang.py DIR PROGRAM [ARG...]: runs it with a file system at DIR that answers nothing, as one whose
server is away. It ends with the program, which inherits the server's end."""
import ctypes
import os
import sys

server = os.open("/dev/fuse", os.O_RDWR)
os.set_inheritable(server, True)
options = f"fd={server},rootmode=40000,user_id=0,group_id=0"
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"away", os.fsencode(sys.argv[1]), b"fuse", 0, options.encode()):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[2], sys.argv[2:])
