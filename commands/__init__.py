"""The verbs of `dream`, one file each; installed as dream_cli.commands."""

if __name__ != "dream_cli.commands":
    raise ImportError("this folder is installed as dream_cli.commands")
