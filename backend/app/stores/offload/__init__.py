"""The offload job: copy, verify, purge, and what looks after the archive. Stores get a reader of it, never the job."""
