# Runs the installed AWS CLI for requests on a socket: each run is a fork of a
# process that has imported the CLI and nothing else, which saves most of the time
# of a run. Requests for STS, AWS SSO and AWS Sign-In go to a server of the test's; what
# the CLI decides and signs is its own.
#
#   server.py SOCKET http://ADDRESS
import gc, importlib, json, os, signal, socket, sys, tempfile
from urllib.parse import urlsplit

import awscli.clidriver
import awscli.customizations.eks.get_token
import awscli.handlers  # imports every customization, a third of the time of a run

local = sys.argv[2]


def redirect(module):
    """Makes the HTTP client of a botocore send requests for AWS here."""
    send = module.URLLib3Session.send

    def sent_here(self, request):
        parts = urlsplit(request.url)
        if parts.netloc.endswith((".amazonaws.com", ".amazon.com")):
            request.url = request.url.replace("https://" + parts.netloc, local + "/" + parts.netloc, 1)
        return send(self, request)

    module.URLLib3Session.send = sent_here


# Version 2 has a botocore of its own within.
for name in ("awscli.botocore", "botocore"):
    try:
        redirect(importlib.import_module(name + ".httpsession"))
        for part in ("client", "session", "credentials"):
            importlib.import_module(name + "." + part)
    except ImportError:
        pass

try:
    import distro

    distro.info()  # runs lsb_release, once in a process
except ImportError:
    pass


class Key:
    """Signs a refresh of aws login where awscrt is not installed. Nobody checks."""

    def get_public_coords(self):
        return b"x", b"y"

    def sign(self, digest):
        return digest


class EC:
    new_key_from_der_data = staticmethod(lambda data: Key())
    decode_der_signature_to_padded_pair = staticmethod(lambda signature, pad_to: signature)


credentials = sys.modules.get("awscli.botocore.credentials") or sys.modules["botocore.credentials"]
if getattr(credentials, "EC", EC) is None:
    credentials.EC = EC


def run(request):
    """Runs one command in this process, which has to end then: it has changed its environment."""
    out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    os.chdir(request["dir"])
    data = os.environ["AWS_DATA_PATH"]  # the CLI sets it when it is imported
    os.environ.clear()
    os.environ["AWS_DATA_PATH"] = data
    for entry in request["env"]:
        name, _, value = entry.partition("=")
        os.environ[name] = value
    sys.argv = ["aws"] + request["args"]
    try:
        code = awscli.clidriver.main()
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    out.seek(0)
    err.seek(0)
    return {"code": code, "stdout": out.read().decode(), "stderr": err.read().decode()}


listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(64)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
gc.freeze()  # or each fork copies what its collector looks at
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    if os.fork() == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listener.close()
        try:
            with connection, connection.makefile("rw") as f:
                json.dump(run(json.loads(f.readline())), f)
        finally:
            os._exit(0)  # without an answer the front says that there is none
    connection.close()
