"""The tests; a package by name, for a library that we test against installs one called so too."""
