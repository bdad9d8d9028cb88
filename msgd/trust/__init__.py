"""Who is who: the node's key, TLS 1.3 around every link, and the proof in a dialler's hello.

| file | |
|---|---|
| `identity` | the key and its file, the identity in bytes and as text, the certificate |
| `tls` | both contexts, and what is checked after a handshake |
| `proof` | what a dialler signs; pure |

The rules are the trust protocol's; `peer` speaks its frames and gets the proof as two functions.
"""
