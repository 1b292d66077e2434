"""`python -m dream_cli` is `dream`."""

from dream_cli.cli.main import main

main()
