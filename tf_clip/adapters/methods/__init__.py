"""What adapters compute, one method a module."""
