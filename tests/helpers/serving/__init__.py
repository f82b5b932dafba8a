"""What asks a served model, and the servers themselves."""
