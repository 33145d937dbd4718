"""``python -m fatpatch``, and what the script ``fatpatch`` calls."""

import gc


def main() -> None:
    """Run the command line and exit."""
    gc.set_threshold(200_000, 50, 50)  # records live until the end: collecting them early is time for nothing
    from fatpatch.commands import main as run

    run()


if __name__ == "__main__":  # worker processes import this file on some systems
    main()
