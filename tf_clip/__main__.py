"""`python -m tf_clip` is `tf-clip`."""

from tf_clip.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
