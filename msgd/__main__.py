"""`python -m msgd`."""

from msgd.main import main

if __name__ == "__main__":
    raise SystemExit(main())
