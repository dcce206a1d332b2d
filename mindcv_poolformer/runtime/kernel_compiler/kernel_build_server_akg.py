"""MindSpore's compiler of graph kernels, in a process group of its own, with more patience.

MindSpore runs the script of this name, in the folder that `cpu.fuse` tells it. What a terminal or
a batch system sends to all processes of a run then reaches the run alone, which lets the compiler
end. The compiler leaves by itself when the run has gone.
"""

import os
import runpy
import time
from typing import Any

os.setpgid(0, 0)  # before MindSpore's import, which takes seconds

# isort: split
from mindspore._extends.remote import kernel_build_server  # noqa: E402

# For all kernels of a graph: of a large network a hundred, of half a second each. MindSpore's own
# 300 are too few where many others compute.
PATIENCE_SECONDS = 1800


class Compiler(kernel_build_server.AkgBuilder):
    """Waits longer, and says in a line why it fails."""

    def create(self, process_num: int, waitime: int) -> None:
        super().create(process_num, PATIENCE_SECONDS)

    def handle(self, messager: Any, arg: str) -> None:
        started = time.monotonic()
        try:
            super().handle(messager, arg)
        except Exception as error:  # the edge of the process: MindSpore raises what is written here
            reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
            messager.fout.write(
                f"graph kernels: found {reason} after {time.monotonic() - started:.0f} s of "
                "compiling, expected kernels: try again with less else to do for this machine, or "
                "do without them by MINDCV_POOLFORMER_GRAPH_KERNELS=0\n"
            )
            messager.fout.flush()
            messager.exit()


kernel_build_server.AkgBuilder = Compiler
runpy.run_module("mindspore._extends.remote.kernel_build_server_akg", run_name="__main__")
