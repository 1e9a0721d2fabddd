"""What the bundled program starts with: nothing of its own, so that it is the same program."""

from agent.cli import main

main()
