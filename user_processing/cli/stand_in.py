"""`user-processing api`: the stand-in for the API by itself. It reads no setting, and is there at once."""

import contextlib
import errno
import signal
import socket

from user_processing.cli.output import say
from user_processing.cli.session import CommandError
from user_processing.embedded import api

_CAUSES = {
    socket.EAI_NONAME: "nobody knows this name. Correct --host.",
    errno.EADDRINUSE: "another program listens there. Choose another --port, or 0 for any that is free.",
    errno.EACCES: "your user may not. Choose a --port above 1023.",
    errno.EADDRNOTAVAIL: "this machine does not have that address. Correct --host.",
}


def serve(host: str, port: int, rate_limit: int) -> None:
    """Serve the API until Ctrl-C or SIGTERM.

    Args:
        host: the address to listen on.
        port: 0 for any that is free.
        rate_limit: users per client address in five minutes; 0 for no limit.

    Raises:
        CommandError: it cannot listen there.
    """
    # Blocked before the server's threads exist, which inherit it: the signals then wait for sigwait below.
    stop = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(api.serve(port, host=host, rate_limit=rate_limit or None))
        except OSError as error:
            cause = _CAUSES.get(error.errno or 0, f"{error}. Choose another --host or --port.")
            raise CommandError(f"Cannot listen on {api.in_url(host)}:{port}: {cause}") from None
        say(f"Users at {url}")
        if rate_limit:
            minutes = api.RATE_WINDOW_SECONDS // 60
            say(
                f"Each client gets {rate_limit:,} users in {minutes} minutes, then 429. "
                "Without --rate-limit there is no limit."
            )
        signal.sigwait(stop)
