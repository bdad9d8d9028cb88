"""Who is who: the node's key, TLS 1.3 around every link, and the proof in a dialler's hello.

| file | |
|---|---|
| `identity` | the key and its file, the identity in bytes and as text, the certificate |
| `tls` | both contexts, and what is checked after a handshake |
| `proof` | what a dialler signs; pure |
| `words` | the four words of an exchange, its commitment; pure |
| `invitation` | the string that lets a node join, and the proof of its secret; pure |
| `rotation` | a new key signed by the old one, and what a chain of them proves; pure |
| `nextkey` | the file of the key to come |

The rules are the trust protocol's; `peer` speaks its frames and gets the proof as two functions.
"""
