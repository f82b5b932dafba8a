"""The command line `tf-clip`: parse, call one function, print."""
