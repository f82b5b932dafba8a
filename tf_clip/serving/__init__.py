"""The local server: an exported model behind REST, gRPC and a page, in one process.

It runs on kserve's server and on bare TensorFlow: neither Keras nor the rest of tf_clip is needed.
"""

from __future__ import annotations

import sys

# kserve takes the words of this process's command line for its own options when it is imported.
_arguments, sys.argv = sys.argv, sys.argv[:1]
try:
    import kserve  # noqa: F401
except ImportError as error:
    raise ImportError(f'The local server needs kserve ({error}). Run pip install "tf_clip[serve]".') from error
finally:
    sys.argv = _arguments
