"""The bus: NATS JetStream streams and buckets, task records, and the loop that every hop's worker runs."""
