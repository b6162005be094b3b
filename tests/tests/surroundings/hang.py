"""hang.py PATH[:PATH...] PROGRAM [ARG...]: runs PROGRAM with a FUSE file system at each PATH, which is a
folder or a file. The file systems never answer, as if their server had died. They end with PROGRAM, which
inherits the descriptors of the servers."""
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
