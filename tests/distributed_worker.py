"""Checks of distributed pruning, run by two processes that talk through gloo; tests/test_nn_distributed.py starts them.

    python distributed_worker.py RANK FOLDER

Every check is run by both processes in the same order, on data of their own. What they found goes to FOLDER/RANK.json:
{name: "" or the traceback}. After a failed check the processes may have lost each other, so the following are not run.
"""

from __future__ import annotations

import json
import sys
import traceback
from datetime import timedelta

import distributed_copies  # noqa: F401
import distributed_files  # noqa: F401
import distributed_shards  # noqa: F401
import torch
import torch.distributed as dist
from distributed_cases import CHECKS, WORLD, folder


def main(number: int) -> None:
    torch.set_num_threads(1)
    patience = timedelta(seconds=60)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder() / 'meeting'}", rank=number, world_size=WORLD, timeout=patience
    )
    found: dict[str, str] = {}
    for name, function in CHECKS.items():
        try:
            function()
            found[name] = ""
        except BaseException:
            found[name] = traceback.format_exc()
        (folder() / f"{number}.json").write_text(json.dumps(found))
        if found[name]:
            break
    if not any(found.values()):
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]))
