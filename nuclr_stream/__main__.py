"""`python -m nuclr_stream` is the command nuclr-stream."""

from nuclr_stream.commands.cli import main

if __name__ == "__main__":
    main()
