"""`python -m mint`, the same as `mint`."""

from mint.cli import main

raise SystemExit(main())
