"""The container image: built where no registry is in reach, and its programs started."""
