"""One worker: one artefact behind gRPC."""
