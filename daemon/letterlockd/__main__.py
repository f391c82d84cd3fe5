"""`python -m letterlockd` is `letterlockd`."""

from letterlockd.cli import main

main()
