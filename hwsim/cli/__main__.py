"""`python -m hwsim.cli`, for where the script is not on the path."""

from hwsim.cli import main

main()
