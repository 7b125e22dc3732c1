"""What stands on a backbone and names what is in a picture."""
