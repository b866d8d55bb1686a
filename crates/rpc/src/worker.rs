//! Connection threads: who accepts, who serves, how they stop.
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::LocalSet;

use crate::clock::Clock;
use crate::http1;
use crate::http2::Connection;
use crate::metrics::Registry;
use crate::net::{Prefixed, Protocol, detect};
use crate::options::Options;
use crate::seam::Service;
use crate::thread::{TICK_MS, Thread};

/// Accepted sockets that wait for one thread.
const HANDOVER_MAX: usize = 1_024;

/// How long a connection may be silent before it says what it speaks.
///
/// Source: grpc-go v1.82.1 server.go, `connectionTimeout`.
const GREETING_TIMEOUT: Duration = Duration::from_secs(120);

/// The pauses after an accept that failed, for want of file descriptors mostly.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(5);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long a connection may be silent before the kernel asks after it, how often it asks again, and how often in all.
const TCP_KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const TCP_KEEPALIVE_COUNT: u32 = 9;

/// How often a stopping thread looks whether its connections are gone.
const DRAIN_LOOK: Duration = Duration::from_millis(5);

/// The most connection threads: a waiter's token has eight bits for its thread.
pub const THREADS_MAX: usize = 256;

/// An accepted socket on its way to its thread, with its share of the connection limit.
type Accepted = (std::net::TcpStream, OwnedSemaphorePermit);

/// The front door before it is opened: one [`Worker`] for each connection thread, and the means to stop them.
#[derive(Debug)]
pub struct FrontDoor {
    /// To be run on a thread each.
    pub workers: Vec<Worker>,
    /// Stops them all.
    pub stop: Stop,
}

/// Stops all workers.
#[derive(Clone, Debug)]
pub struct Stop(Arc<watch::Sender<bool>>);

impl Stop {
    pub(crate) fn new(stop: watch::Sender<bool>) -> Self {
        Self(Arc::new(stop))
    }

    /// Tells the workers to accept no more, to let the calls under way end, and to return.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// One connection thread's part of the front door.
#[derive(Debug)]
pub struct Worker {
    index: usize,
    options: Options,
    clock: Clock,
    registry: Arc<Registry>,
    sockets: mpsc::Receiver<Accepted>,
    acceptor: Option<Acceptor>,
    stop: watch::Receiver<bool>,
}

#[derive(Debug)]
struct Acceptor {
    listeners: Vec<TcpListener>,
    workers: Vec<mpsc::Sender<Accepted>>,
    limit: Arc<Semaphore>,
}

impl FrontDoor {
    /// Prepares the front door behind sockets that listen already.
    ///
    /// `registry` must have as many threads as `options` say.
    ///
    /// # Errors
    ///
    /// What the operating system says to making the sockets non-blocking.
    ///
    /// # Panics
    ///
    /// When the number of threads is 0, above [`THREADS_MAX`], or not the registry's.
    pub fn new(
        listeners: Vec<TcpListener>,
        options: &Options,
        clock: Clock,
        registry: &Arc<Registry>,
    ) -> io::Result<Self> {
        let threads = options.threads;
        assert!(
            (1..=THREADS_MAX).contains(&threads),
            "the number of threads is within its limits"
        );
        for listener in &listeners {
            listener.set_nonblocking(true)?;
        }
        let (stop, stopped) = watch::channel(false);
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..threads).map(|_| mpsc::channel(HANDOVER_MAX)).unzip();
        let limit = Arc::new(Semaphore::new(
            options.max_connections.min(Semaphore::MAX_PERMITS),
        ));
        let mut acceptor = Some(Acceptor {
            listeners,
            workers: senders,
            limit,
        });
        let workers = receivers
            .into_iter()
            .enumerate()
            .map(|(index, sockets)| Worker {
                index,
                options: options.clone(),
                clock,
                registry: registry.clone(),
                sockets,
                acceptor: acceptor.take(),
                stop: stopped.clone(),
            })
            .collect();
        Ok(Self {
            workers,
            stop: Stop::new(stop),
        })
    }
}

impl Worker {
    /// Returns which of the workers this is, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Serves connections on this thread until the front door is stopped. `make` runs on the thread, inside its runtime
    /// and task set, and may spawn local tasks.
    ///
    /// # Errors
    ///
    /// When the operating system refuses what a runtime needs.
    pub fn run<S: Service>(self, make: impl FnOnce() -> S) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let local = LocalSet::new();
        let thread = Thread::new(
            self.options.clone(),
            self.clock,
            self.registry.thread(self.index),
        );
        local.block_on(&runtime, async move {
            let service = Rc::new(make());
            self.serve(thread, service).await;
        });
        drop(local);
        // Nobody waits any more for what is still made beside the thread, so the stop does not either.
        runtime.shutdown_background();
        Ok(())
    }

    async fn serve<S: Service>(mut self, thread: Rc<Thread>, service: Rc<S>) {
        tokio::task::spawn_local(tick(thread.clone(), service.clone()));
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.start(&self.stop);
        }
        let mut stop = self.stop.clone();
        loop {
            let (socket, permit) = tokio::select! {
                accepted = self.sockets.recv() => match accepted {
                    Some(accepted) => accepted,
                    None => break,
                },
                _ = stop.wait_for(|stop| *stop) => break,
            };
            // A socket that the runtime does not take is closed by being dropped.
            let Ok(socket) = TcpStream::from_std(socket) else {
                continue;
            };
            let (thread, service, stop) = (thread.clone(), service.clone(), self.stop.clone());
            tokio::task::spawn_local(async move {
                let _permit = permit;
                serve_connection(socket, thread, service, stop).await;
            });
        }
        service.stop();
        drain(&thread).await;
    }
}

async fn tick<S: Service>(thread: Rc<Thread>, service: Rc<S>) {
    let mut interval = tokio::time::interval(Duration::from_millis(TICK_MS));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        thread.tick();
        service.tick(thread.now_ms.get());
    }
}

/// Lets the calls under way end, for as long as that may take.
async fn drain(thread: &Rc<Thread>) {
    let until_ms = thread
        .clock
        .now_ms()
        .saturating_add(thread.options.drain_ms);
    thread.drain();
    while thread.live() > 0 && thread.clock.now_ms() < until_ms {
        tokio::time::sleep(DRAIN_LOOK).await;
    }
}

/// Finds out what a connection speaks and serves it.
///
/// # Cancel safety
///
/// Dropping it drops the connection.
pub(crate) async fn serve_connection<S, T>(
    mut io: T,
    thread: Rc<Thread>,
    service: Rc<S>,
    mut stop: watch::Receiver<bool>,
) where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + std::fmt::Debug + 'static,
{
    let greeting = tokio::select! {
        greeting = tokio::time::timeout(GREETING_TIMEOUT, detect(&mut io)) => greeting,
        _ = stop.wait_for(|stop| *stop) => return,
    };
    let Ok(Ok(Some((protocol, first)))) = greeting else {
        return;
    };
    let io = Prefixed::new(first.freeze(), io);
    match protocol {
        Protocol::Http1 => {
            let _live = thread.enter();
            http1::serve(io, service, stop).await;
        }
        Protocol::Http2 => {
            let open = tokio::time::timeout(
                GREETING_TIMEOUT,
                Connection::open(io, service, thread.clone()),
            );
            if let Ok(Some(connection)) = open.await {
                connection.serve().await;
            }
        }
    }
}

impl Acceptor {
    /// Spawns a task for each listening socket; they end, and close their sockets, when `stop` turns true.
    fn start(self, stop: &watch::Receiver<bool>) {
        for listener in self.listeners {
            let (workers, limit, mut stop) =
                (self.workers.clone(), self.limit.clone(), stop.clone());
            tokio::task::spawn_local(async move {
                tokio::select! {
                    () = accept(listener, workers, limit) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            });
        }
    }
}

/// Accepts for ever and hands the sockets to the threads in turn.
async fn accept(
    listener: TcpListener,
    workers: Vec<mpsc::Sender<Accepted>>,
    limit: Arc<Semaphore>,
) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    let mut pause = ACCEPT_PAUSE_MIN;
    let mut next: usize = 0;
    loop {
        let Ok(permit) = limit.clone().acquire_owned().await else {
            return;
        };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(_) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                continue;
            }
        };
        pause = ACCEPT_PAUSE_MIN;
        set_options(&socket);
        let Ok(socket) = socket.into_std() else {
            continue;
        };
        next = next.wrapping_add(1);
        hand_over(&workers, next, (socket, permit));
    }
}

/// Gives a socket to the next thread that has room for it. When none has, the socket is closed: the threads do not keep
/// up, and the one that accepts serves connections too and waits for none.
fn hand_over(workers: &[mpsc::Sender<Accepted>], next: usize, mut accepted: Accepted) {
    for at in 0..workers.len() {
        match workers[(next + at) % workers.len()].try_send(accepted) {
            Ok(()) => return,
            Err(TrySendError::Full(back) | TrySendError::Closed(back)) => accepted = back,
        }
    }
}

/// Sets what etcd sets on every connection. A socket that fails here is gone already; it goes on to fail where it is
/// served.
///
/// Source: etcd v3.7.1 client/pkg/transport/keepalive_listener.go, over the interval and count that Go sets.
fn set_options(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(socket, true);
    let _ = sockopt::set_tcp_keepidle(socket, TCP_KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(socket, TCP_KEEPALIVE_INTERVAL);
    let _ = sockopt::set_tcp_keepcnt(socket, TCP_KEEPALIVE_COUNT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_goes_to_a_thread_with_room_and_is_closed_when_there_is_none() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let limit = Arc::new(Semaphore::new(10));
            let accepted = || {
                let socket = std::net::TcpStream::connect(addr).unwrap();
                (socket, limit.clone().try_acquire_owned().unwrap())
            };
            let (first, mut at_first) = mpsc::channel(1);
            let (second, mut at_second) = mpsc::channel(1);
            let workers = [first, second];
            for _ in 0..3 {
                hand_over(&workers, 0, accepted());
            }
            assert!(at_first.try_recv().is_ok() && at_first.try_recv().is_err());
            assert!(at_second.try_recv().is_ok() && at_second.try_recv().is_err());
            assert_eq!(limit.available_permits(), 10, "the third is closed");
        });
    }

    #[test]
    fn connections_are_kept_alive_as_by_etcd() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let socket = TcpStream::connect(listener.local_addr().unwrap())
                .await
                .unwrap();
            set_options(&socket);
            assert!(socket.nodelay().unwrap());
            assert!(sockopt::socket_keepalive(&socket).unwrap());
            assert_eq!(
                sockopt::tcp_keepidle(&socket).unwrap(),
                Duration::from_secs(30)
            );
            assert_eq!(
                sockopt::tcp_keepintvl(&socket).unwrap(),
                Duration::from_secs(15)
            );
            assert_eq!(sockopt::tcp_keepcnt(&socket).unwrap(), 9);
        });
    }
}
