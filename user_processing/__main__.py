"""`python -m user_processing` is the command `user-processing`."""

from user_processing.cli import main

if __name__ == "__main__":
    main()
