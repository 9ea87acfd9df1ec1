"""`python tests/xet/upload.py ENDPOINT`: uploads files to a Xet store by hf_xet.

Reads JSON of sha256 and path, and writes JSON of sha256 and Xet hash.
"""

import json
import sys
import time

import hf_xet

DAY_S = 86400


def main(endpoint: str) -> None:
    paths: dict[str, str] = json.load(sys.stdin)
    expires = int(time.time()) + DAY_S
    session = hf_xet.XetSession()
    with session.new_upload_commit(
        endpoint=endpoint, token="any", token_expiry_unix_secs=expires
    ) as commit:
        handles = {
            sha256: commit.start_upload_file(path, sha256=sha256) for sha256, path in paths.items()
        }
    json.dump({each: handle.result().xet_info.hash for each, handle in handles.items()}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
