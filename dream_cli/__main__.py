"""The entry of `dream`, which handles signals before anything heavy is imported."""

from __future__ import annotations

from dream_cli.cli.signals import end_quietly


def main() -> None:
    """Run `dream`."""
    end_quietly()
    from dream_cli.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
