"""docs/reference/device-openapi.json, from the structs that the server reads and writes.

Make it anew: PYTHONPATH=tests python -m support.device_openapi_page > docs/reference/device-openapi.json
"""

import sys

from whimbrel.server.device_openapi import device_openapi

if __name__ == "__main__":
    sys.stdout.buffer.write(device_openapi())
