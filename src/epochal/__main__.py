"""``python -m epochal``: the command line."""

from epochal.cli import main

if __name__ == "__main__":
    main()
