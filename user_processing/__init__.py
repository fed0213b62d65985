"""The code location: `dagster … -m user_processing` finds `defs` here.

`defs` is looked up when it is asked for, not when the package is imported: Dagster's own processes import
`user_processing.internals.storage` from here, and have no use for the assets.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from user_processing.definitions import defs

__all__ = ["defs"]


def __getattr__(name: str) -> object:
    if name == "defs":
        from user_processing.definitions import defs  # noqa: PLC0415

        return defs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "defs"]
