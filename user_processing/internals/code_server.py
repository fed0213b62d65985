"""`python -m user_processing.internals.code_server --host 0.0.0.0 --port 4000`: the code server of this project.

It is `dagster api grpc` with all of its options, and differs in two ways:

- It ends on SIGTERM also where SIGINT is ignored (`interruptible`).
- It is refused where another code server listens on its port. gRPC lets servers share a port (SO_REUSEPORT), and each
  of two code servers gets some of the requests (dagster-io/dagster#2639, grpc/grpc#16920). That can be deleted when
  Dagster sets `grpc.so_reuseport` to 0.
"""

import sys
from collections.abc import Sequence
from typing import Any

# This module is imported by the process of each run as well: what the server alone needs is imported in `main`.
from user_processing.internals.interruptible import restore_interrupt


def main(arguments: Sequence[str]) -> None:
    """Serve the definitions until a signal comes, and all runs of this server have ended."""
    import grpc  # type: ignore[import-untyped]  # noqa: PLC0415
    from dagster._cli.api import grpc_command  # noqa: PLC0415

    restore_interrupt()
    make_server = grpc.server

    def make_server_alone(*args: Any, options: Sequence[tuple[str, object]] = (), **more: Any) -> grpc.Server:  # noqa: ANN401
        return make_server(*args, options=[*options, ("grpc.so_reuseport", 0)], **more)

    grpc.server = make_server_alone
    try:
        grpc_command(["--module-name", "user_processing", *arguments])
    except RuntimeError as error:
        if "Failed to bind" not in str(error):
            raise
        sys.exit(f"The code server cannot listen: another program does. Stop it, or choose another --port. {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
