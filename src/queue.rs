//! The queues over the log.
