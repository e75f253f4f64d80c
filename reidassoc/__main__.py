"""``python -m reidassoc`` is the command ``reidassoc``."""

from reidassoc.cli import main

if __name__ == "__main__":
    main()
