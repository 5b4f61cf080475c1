"""The python blocks of README.md and of every page here are tests; harness/pages.py says by which rules."""

import pytest
from harness.pages import Pages


def pytest_configure(config: pytest.Config) -> None:
    # Not as this file's own hook: pytest would ask that only for what lies below docs/, and README.md does not.
    config.pluginmanager.register(Pages(config.rootpath), "pages")
