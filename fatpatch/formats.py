"""``fatpatch.formats`` in a checkout: the folder ``formats/`` beside this package.

A wheel holds that folder as ``fatpatch/formats/`` and leaves this module out. A symbolic link in its place would break in a clone made
with ``core.symlinks=false``, the default of Git for Windows.
"""

import os.path

__path__ = [os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "formats")]
