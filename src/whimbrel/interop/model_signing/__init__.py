"""OpenSSF model signatures: did somebody sign the files of this version, before it was published?

    bundle.py      a bundle is read within limits: a Sigstore bundle around an in-toto statement of names and digests
    signature.py   the signature is verified against a public key, or against root certificates and an identity
    coverage.py    the files that are published are among those that were signed, each with its digest

The library `model_signing` verifies signatures (`pip install 'whimbrel[signing]'`); no crypto is ours. Bundles that
were signed with a key or a certificate are verified without a network. Keyless ones, whose certificate Sigstore's
public service gave out, are refused with that reason.

Called by `whimbrel publish` before anything is uploaded, by `whimbrel version provenance --verify`, and by the server
where a model demands a signer.
"""
