//! The front door from the outside: a real HTTP/2 client against an in-process service, over real sockets.
mod abuse;
mod echo;
mod framing;
mod http1;
mod pings;
