"""What the tests of verbs share with those of the original's files."""

from tests.interop.conftest import text  # noqa: F401 - a fixture
