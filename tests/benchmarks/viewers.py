"""How late the event loop of an app is while many look at its dashboard: `python tests/benchmarks/viewers.py`.

The app has 64 slots whose tracks are full, and serves the page by uvicorn. Viewers come all at once, and read what they
are sent (`slow`: nothing of it). A beat of 5 ms on the loop measures how late it is; what it was late for is told in
processor time of the longest turn of the loop, too, which other programs on the machine don't change.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import uvicorn

from director import Director
from director.dashboard import Dashboard

SLOTS, SECONDS, BEAT = 64, 4.0, 0.005
VIEWERS = """
import select, socket, sys, time
count, port, reads = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "reads"
answers = {}
for _ in range(count):
    viewer = socket.create_connection(("127.0.0.1", port))
    viewer.sendall(b"GET /events HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    answers[viewer] = b""
end = time.monotonic() + float(sys.argv[4])
while time.monotonic() < end:
    waiting = [viewer for viewer, answer in answers.items() if reads or not answer]
    for viewer in select.select(waiting, [], [], 0.1)[0]:
        answers[viewer] = answers[viewer] or viewer.recv(12)
        if reads:
            viewer.recv(1 << 20)
print(*[answer.decode()[9:12] for answer in answers.values()])
"""


def fill(dashboard: Dashboard) -> None:
    """A minute of calls of 60 ms on every slot."""
    feed: Any = dashboard._source
    recorder = feed.recorder
    now = recorder.clock()
    for track in recorder.tracks:
        for number in range(500):
            begin = now - 60 + number * 0.12
            track.add(begin, begin + 0.06, number, f"function{number % 7}", False)


class Turns:
    """Measures each turn of a loop, in processor time of its thread."""

    def __init__(self, loop: Any) -> None:
        self.longest = self.late = 0.0
        turn = loop._run_once

        def measured() -> None:
            began = time.thread_time()
            turn()
            self.longest = max(self.longest, time.thread_time() - began)

        loop._run_once = measured

    async def beat(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(BEAT)
            self.late = max(self.late, time.monotonic() - began - BEAT)


async def measure(count: int, reads: bool, dashboard: Dashboard, port: int, turns: Turns) -> str:
    command = [sys.executable, "-c", VIEWERS, str(count), str(port), "reads" if reads else "slow", str(SECONDS)]
    viewers = await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.PIPE)
    turns.longest = turns.late = 0.0
    told, _ = await asyncio.to_thread(viewers.communicate)
    longest, late = turns.longest, turns.late
    statuses = ", ".join(f"{number} x {status}" for status, number in sorted(Counter(told.decode().split()).items()))
    return f"{count:>5} {'read' if reads else 'slow'}  {longest * 1e3:>8.1f} ms  {late * 1e3:>8.1f} ms  {statuses}"


async def main() -> None:
    director = Director(f"simulated:{SLOTS}", max_queue=None)
    dashboard = Dashboard(director)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        async with director:
            fill(dashboard)
            gc.collect()
            gc.freeze()  # as docs/how-to/deploy.md advises servers
            turns = Turns(asyncio.get_running_loop())
            beat = asyncio.create_task(turns.beat())
            server = uvicorn.Server(uvicorn.Config(dashboard, log_level="critical", lifespan="off", backlog=2048))
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            print("viewers     longest turn     loop late  answers")
            for count, reads in ((0, True), (1, True), (1, True), (16, True), (64, True), (64, False), (1000, True)):
                print(await measure(count, reads, dashboard, listener.getsockname()[1], turns), flush=True)
                await asyncio.sleep(1)  # until all have left
            server.should_exit = True
            await serving
            beat.cancel()


if __name__ == "__main__":
    asyncio.run(main())
