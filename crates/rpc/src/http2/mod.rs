//! gRPC over the `h2` crate: one task a connection, calls polled inside it.
mod call;
mod connection;
mod inbound;
mod reply;
mod request;
mod slow;

pub(crate) use connection::{Connection, ConnectionState};
pub(crate) use inbound::MessageStream;
pub(crate) use reply::Reply;
