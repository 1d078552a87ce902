"""`python -m whimbrel.cli`: the command line where no script is installed."""

from whimbrel.cli.app import main

main()
