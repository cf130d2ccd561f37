"""``python -m deadweight``."""

from deadweight.cli import main

main()
