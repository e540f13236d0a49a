"""The command `mint`, and `python -m mint`."""

import signal


def main() -> int:
    """Run the command line of the process and return its exit code."""
    # While the command line is imported, Ctrl-C ends the process without a traceback; then it is told in one line.
    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if default:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from mint.cli import main as run

    if default:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


if __name__ == "__main__":
    raise SystemExit(main())
