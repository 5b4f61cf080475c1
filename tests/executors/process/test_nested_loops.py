"""Loops that are entered again, by nest_asyncio, as notebooks do; in programs of their own, for it patches asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Program = Callable[..., CompletedProcess[str]]

pytest.importorskip("nest_asyncio")

pytestmark = pytest.mark.slow

NESTED = """
    import sys, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # of nest_asyncio's own
    if sys.argv[1] == "before":
        import nest_asyncio; nest_asyncio.apply()
    import asyncio
    from director import Director
    from executors.process import calls
    if sys.argv[1] == "after":
        import nest_asyncio; nest_asyncio.apply()

    async def main():
        if sys.argv[1] == "within":
            import nest_asyncio; nest_asyncio.apply()
        loop, said = asyncio.get_running_loop(), []
        loop.set_exception_handler(lambda _, context: said.append(repr(context)))
        async with Director("simulated:2", executor=sys.argv[2]) as director:
            if sys.argv[1] == "open":
                import nest_asyncio; nest_asyncio.apply()

            async def nested(i):
                value = await director.run(calls.echo, i)
                return loop.run_until_complete(director.run(calls.echo, i)) if i % 3 == 0 else value

            assert await asyncio.gather(*map(nested, range(60))) == list(range(60))
            first, waiting = director.submit(calls.echo), director.submit(calls.echo)
            waiting.add_done_callback(lambda job: said.append(loop.run_until_complete(director.run(calls.echo, "in"))))
            await asyncio.gather(first, waiting)
            while not said:
                await asyncio.sleep(0)
            print([job.cancel() for job in [director.submit(calls.echo)]], said)
        print(director.state.value, director.stats().failed)

    if __name__ == "__main__":
        asyncio.run(main())
"""


@pytest.mark.parametrize("when", ["before", "after", "within", "open"])
def test_calls_within_calls_of_the_loop(program: Program, when: str) -> None:
    done = program(NESTED, when, "thread")
    assert done.stdout == "[True] ['in']\nclosed 0\n", done.stderr


def test_the_same_with_processes(program: Program) -> None:
    done = program(NESTED, "after", "process")
    assert done.stdout == "[True] ['in']\nclosed 0\n", done.stderr
