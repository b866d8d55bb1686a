//! The front door: gRPC services, health and metrics on one port.
