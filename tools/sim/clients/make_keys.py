"""Writes a keys file for `tandem sim --keys`: one client, one account each, keys made anew.

Usage: make_keys.py FILE NAME...
"""

import base64
import json
import os
import secrets
import sys
import uuid

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519


def pem(key, form):
    return key.private_bytes(
        serialization.Encoding.PEM, form, serialization.NoEncryption()
    ).decode()


def client(name):
    ec_key = ec.generate_private_key(ec.SECP256R1())
    ed_key = ed25519.Ed25519PrivateKey.generate()
    return {
        "binance": {"api_key": f"{name}-hmac-{secrets.token_hex(8)}", "secret": secrets.token_hex(32)},
        "binance_ed25519": {
            "api_key": f"{name}-ed-{secrets.token_hex(8)}",
            "private_key_pem": pem(ed_key, serialization.PrivateFormat.PKCS8),
        },
        "coinbase": {
            "api_key": f"organizations/{uuid.uuid4()}/apiKeys/{uuid.uuid4()}",
            "private_key_pem": pem(ec_key, serialization.PrivateFormat.TraditionalOpenSSL),
        },
        "kraken": {
            "api_key": f"{name}{secrets.token_hex(8)}",
            "secret": base64.b64encode(secrets.token_bytes(64)).decode(),
            "nonce_window": 0,
        },
    }


def main():
    path, names = sys.argv[1], sys.argv[2:]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"clients": {name: client(name) for name in names}}, file, indent=1)


main()
