"""Leaves out a module that another library imports but hardly ever uses, until it is used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any


class _OnDemand(ModuleType):
    """Stands for a module: each name is a function that imports the module and calls what has the name there."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            return getattr(import_module(self.__name__), name)(*arguments, **named)

        return call


@contextmanager
def on_demand(module: str) -> Iterator[None]:
    """Within it, `from <module> import name` does not import the module; calling `name` later does.

    For functions and classes that are only called: a class imported this way cannot be a base class. A module that is
    loaded already is used as it is.
    """
    if module in sys.modules:
        yield
        return
    sys.modules[module] = _OnDemand(module)
    try:
        yield
    finally:
        del sys.modules[module]
