"""What the bundled agent starts with."""

from agent.cli import main

main()
