"""What the bundled program starts with.

Each ordered program is begun by it (`agent.host.launch`), which needs the standard library
alone and must not wait for everything else.
"""

import sys

if sys.argv[1:2] == ["launch"]:
    from agent.host.launch import launch

    launch(int(sys.argv[2]))

from agent.cli import main

main()
