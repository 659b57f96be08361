"""Leave these tests out where the tests run without the pages, as beside an installed wheel."""

from documenting.pages import PAGES

collect_ignore_glob = [] if PAGES else ["test_*.py"]
