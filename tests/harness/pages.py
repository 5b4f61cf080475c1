"""Markdown pages as tests: every ```python block is run, in order, as a reader would type it.

- The blocks of a page share their names and one event loop; `await` may stand at the top level.
- A block that ends in `async with Director(...) as name:` leaves that Director open for the blocks after it, until one
  of them makes another Director or the page ends. What a page leaves running after that fails it.
- Blocks in other languages are not run. A python block that can't be run here says why in a comment before it, which
  readers of the page don't see: ``<!--- skip: next "it needs a GPU" -->``.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import threading
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, SkipParser

from harness.leaks import tasks_left, threads_left

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from types import CodeType, TracebackType

    from sybil import Document, Example, Region

PAGE = "__page__"  # where a page's names keep the page itself


class Pages:
    """A pytest plugin that collects the Markdown files below `root` which pytest is asked for."""

    def __init__(self, root: Path) -> None:
        parsers = [CodeBlockParser("python", run_block), skips]
        sybil = Sybil(parsers, pattern="*.md", path=str(root), setup=open_page, teardown=close_page)
        self.pytest_collect_file = sybil.pytest()

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """All pages together take minutes; the README is read most."""
        if item.path.suffix == ".md" and item.path.name != "README.md":
            item.add_marker(pytest.mark.slow)


class Page:
    """What the blocks of one page share beside their names: the event loop and the Director left open on it."""

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._runner = asyncio.Runner()
        self._open: AsyncExitStack | None = None

    def run(self, source: str, path: str, names: dict[str, Any]) -> None:
        """Run one block; a Director that an earlier one left open is closed first if this one makes its own."""
        tree = ast.parse(source, path)
        if makes_director(tree):
            self._runner.run(self._close())
            leave_open(tree)
        code = compile(tree, path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        if self._open or code.co_flags & inspect.CO_COROUTINE:
            self._runner.run(self._run(code, names))
        else:  # not on the loop, so that a block may call `asyncio.run`
            exec(code, names)

    async def enter(self, director: AbstractAsyncContextManager[Any]) -> object:
        """What `async with Director(...)` at the end of a block has become."""
        stack = AsyncExitStack()
        entered = await stack.enter_async_context(director)
        self._open = stack
        return entered

    def close(self) -> None:
        """Close what is open; fail if anything is left."""
        with self._runner:
            self._runner.run(self._close())
            left = self._runner.run(tasks_left())
        if left := left or threads_left(self._threads):
            raise AssertionError(left)

    async def _run(self, code: CodeType, names: dict[str, Any]) -> None:
        try:
            result = eval(code, names)
            if inspect.iscoroutine(result):
                await result
        except BaseException as error:
            await self._close(error)
            raise

    async def _close(self, error: BaseException | None = None) -> None:
        stack, self._open = self._open, None
        if stack:
            await stack.__aexit__(*((type(error), error, error.__traceback__) if error else (None, None, None)))


def makes_director(tree: ast.AST) -> bool:
    """Does this code call `Director`?"""
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return "Director" in [getattr(it, "id", None) or getattr(it, "attr", None) for it in called]


def leave_open(tree: ast.Module) -> None:
    """Turn a last `async with Director(...) as name: ...` into ``name = await page.enter(Director(...)); ...``."""
    last = tree.body[-1]
    if not (isinstance(last, ast.AsyncWith) and makes_director(last.items[0].context_expr)):
        return
    if len(last.items) > 1:
        raise SyntaxError("a Director that stays open for the blocks after it needs an `async with` of its own")
    item = last.items[0]
    enter = ast.Attribute(ast.Name(PAGE, ast.Load()), "enter", ast.Load())
    entered = ast.Await(ast.Call(enter, [item.context_expr], []))
    name = item.optional_vars or ast.Name("_", ast.Store())
    tree.body[-1:] = [ast.copy_location(ast.Assign([name], entered), last), *last.body]
    ast.fix_missing_locations(tree)


def run_block(example: Example) -> None:
    __tracebackhide__ = True
    lines_before = example.line + example.parsed.line_offset
    try:
        example.namespace[PAGE].run("\n" * lines_before + example.parsed, example.path, example.namespace)
    except BaseException as error:
        raise error.with_traceback(from_page(example.path, error.__traceback__)) from error.__cause__


def from_page(path: str, entry: TracebackType | None) -> TracebackType | None:
    """The traceback from the page on, without the event loop that ran it; empty if the page isn't in it."""
    while entry and entry.tb_frame.f_code.co_filename != path:
        entry = entry.tb_next
    return entry


def open_page(names: dict[str, Any]) -> None:
    names[PAGE] = Page()
    names["__name__"] = "page"  # as every module has one; not "__main__", which a page may ask for


def close_page(names: dict[str, Any]) -> None:
    names[PAGE].close()


def skips(document: Document) -> Iterator[Region]:
    """The `skip` comments of a page; each has to say why."""
    for region in SkipParser()(document):
        action, reason = region.parsed
        if action != "end" and not reason:
            where = document.line_column(region.start)
            raise ValueError(f'{document.path}, {where}: say why, as in <!--- skip: {action} "it needs a GPU" -->')
        yield region
