//! The front door from the outside: a real HTTP/2 client against an in-process service, over real sockets.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers fail by panicking, as its body does"
)]
mod abuse;
mod auth;
mod echo;
mod framing;
mod http1;
mod kv;
mod lease;
mod maintenance;
mod member;
mod pings;
mod reads;
mod snapshot;
mod stop;
mod watch;
