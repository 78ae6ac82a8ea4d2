"""CPU time of processes and all their descendants, from /proc."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def own_cpu_seconds(pid: int) -> float:
    """Seconds of a process's living threads by the scheduler's count: nanoseconds, where `cpu_seconds` has ticks."""
    spent = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            spent += int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue
    return spent / 1e9


def cpu_seconds(roots: Mapping[str, int | None]) -> dict[str, float]:
    """User and system seconds of each named process with its living and waited-for descendants."""
    used: dict[int, float] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            # After the command's name: state, parent, ...; user, system and waited-for children's time are 14 to 17.
            used[int(entry.name)] = sum(int(each) for each in fields[11:15]) / _TICKS_PER_S
            children[int(fields[1])].append(int(entry.name))

    def total(pid: int) -> float:
        return used.get(pid, 0.0) + sum(total(child) for child in children[pid])

    return {name: total(pid) for name, pid in roots.items() if pid is not None}
