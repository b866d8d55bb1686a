//! The quorate server: configuration, threads, recovery and shutdown.
