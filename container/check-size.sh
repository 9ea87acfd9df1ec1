#!/opt/aim/bin/python -P
"""What a model weighs: `/check-size.sh URI` ends with one line of JSON on stdout.

AIM Engine calls it by this name; it is no shell script.
"""

import sys

from aim_downloader.__main__ import main

sys.argv[1:1] = ["check-size"]
main()
