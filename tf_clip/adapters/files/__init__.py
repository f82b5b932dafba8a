"""Adapters on disk, in AdapterHub's and PEFT's layouts."""
