"""What is fuzzed: everything in the package that reads bytes which came from elsewhere.

A reader is a function of a path, with real files to damage and the errors that it may raise. Any
other exception, a crash, a hang and half an output are findings.
"""

from tests.fuzz.binary_readers import BINARY_READERS
from tests.fuzz.text_readers import TEXT_READERS
from tests.fuzz.whole_readers import WHOLE_READERS

READERS = (*TEXT_READERS, *BINARY_READERS, *WHOLE_READERS)
