"""hang.py PATH[:PATH...] PROGRAM [ARG...]: runs it with a file system at each PATH, a folder or a file,
that answers nothing, as one whose server is away. They end with the program, which inherits the servers'
ends."""
import ctypes
import os
import sys

libc = ctypes.CDLL(None, use_errno=True)
for path in sys.argv[1].split(":"):
    mode = "40000" if os.path.isdir(path) else "100444"
    server = os.open("/dev/fuse", os.O_RDWR)
    os.set_inheritable(server, True)
    options = f"fd={server},rootmode={mode},user_id=0,group_id=0"
    if libc.mount(b"away", os.fsencode(path), b"fuse", 0, options.encode()):
        sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[2], sys.argv[2:])
