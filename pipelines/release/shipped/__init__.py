"""What a release carries as it is: each file runs by itself, without this package."""
