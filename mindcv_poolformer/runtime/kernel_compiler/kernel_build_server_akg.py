"""MindSpore's compiler of graph kernels, in a process group of its own.

MindSpore runs the script of this name, in the folder that `cpu.fuse` tells it. What a terminal or
a batch system sends to all processes of a run then reaches the run alone, which lets the compiler
end. The compiler leaves by itself when the run has gone.
"""

import os
import runpy

os.setpgid(0, 0)
runpy.run_module("mindspore._extends.remote.kernel_build_server_akg", run_name="__main__")
