//! The nonce of an AES-GCM record, out of its tag and the key: `E_K(J0) = tag XOR GHASH(header, ciphertext)`, and J0 ends in 00000001.
