"""What a server needs beside an exported model."""
