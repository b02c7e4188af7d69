"""What Git says of the repository in the current folder."""

import subprocess


def ask_git(*arguments: str) -> str | None:
    """Return what a git command prints, without its last line end; None where it fails or there is no git."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None
