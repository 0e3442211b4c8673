# Prints how the installed AWS CLI reads configuration and credentials files:
# for each pair of files named in the lines of stdin, a line of JSON with its
# profiles, or null if it refuses them.
import json, sys

try:  # version 2 has botocore within
    import awscli.botocore.session as session, awscli.botocore.configloader as configloader
except ImportError:
    import botocore.session as session, botocore.configloader as configloader
import os


def read(config, credentials):
    os.environ["AWS_CONFIG_FILE"], os.environ["AWS_SHARED_CREDENTIALS_FILE"] = config, credentials
    return {"profiles": session.Session().full_config["profiles"]}


for line in sys.stdin:
    config, credentials = line.split()
    try:
        print(json.dumps(read(config, credentials)))
    except Exception:
        print("null")
